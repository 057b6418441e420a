"""A real RTSP server of one camera, for Debian's own Python: ``/usr/bin/python3 rtsp_server.py PORT LOST``.

LOST is the share of its packets that do not leave it.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1"
    " ! jpegenc ! rtpjpegpay pt=26 mtu=600 ! identity drop-probability=%s name=pay0 )"
)


def main() -> None:
    Gst.init(None)
    media = GstRtspServer.RTSPMediaFactory()
    media.set_launch(PIPELINE % sys.argv[2])
    media.set_shared(True)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    server.get_mount_points().add_factory("/camera", media)
    if not server.attach(None):
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
