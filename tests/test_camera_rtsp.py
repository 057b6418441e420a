"""A network camera that goes and comes back, played by GStreamer's RTSP server."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_rig import CameraRig, supervise

PYTHON = "/usr/bin/python3"  # Debian's, which finds Debian's GStreamer
SERVER = Path(__file__).with_name("rtsp_server.py")
PARTS = ("videotestsrc", "jpegenc", "rtpjpegpay")


def missing() -> str | None:
    """Say which Debian package the server wants and does not find."""
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None)\n"
        f"lacks = [name for name in {PARTS} if Gst.ElementFactory.find(name) is None]\n"
        "raise SystemExit(f'no {lacks}' if lacks else 0)"
    )
    try:
        done = subprocess.run([PYTHON, "-c", code], capture_output=True, check=False)
    except FileNotFoundError:
        return f"no {PYTHON}"
    return done.stderr.decode().strip().splitlines()[-1] if done.returncode else None


@pytest.fixture(scope="module", autouse=True)
def _gstreamer() -> None:
    if reason := missing():
        pytest.skip(
            "wants gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-base and "
            f"gstreamer1.0-plugins-good: {reason}"
        )


class RtspServer:
    def __init__(self, lost: float = 0) -> None:
        self.port = 0
        self._lost = lost
        self.start()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [PYTHON, SERVER, str(self.port), str(self._lost)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[RtspServer]:
    server = RtspServer()
    yield server
    server.kill()


def test_a_server_that_dies_and_returns(server: RtspServer) -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=server.address)
        await rig.until(lambda: len(rig.arrivals["top"]) > 20)
        assert rig.errors("top") == []
        server.kill()
        await rig.until_state("top", "failed")
        assert (camera.error or "").startswith(f"{server.address} stopped delivering frames")
        await rig.until(lambda: f"{server.address} does not open" in (camera.error or ""))
        server.start()
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 20)
        assert camera.state == "running"
        assert camera.error is None

    assert len(supervise(story).errors("top")) == 1


def test_a_server_that_falls_silent(server: RtspServer) -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=server.address, stalled_after_s=1)
        await rig.until(lambda: len(rig.arrivals["top"]) > 20)
        server.process.send_signal(signal.SIGSTOP)
        await rig.until_state("top", "stalled")
        assert camera.error == "delivered nothing for 1 s"
        server.process.send_signal(signal.SIGCONT)
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 20)

    supervise(story)


def test_a_picture_that_lost_a_packet_on_its_way_is_a_fault() -> None:
    server = RtspServer(lost=0.01)

    async def story(rig: CameraRig) -> None:
        rig.start("top", source=server.address)
        await rig.until(lambda: len(rig.errors("top")) >= 3 and len(rig.arrivals["top"]) > 20)

    try:
        rig = supervise(story)
    finally:
        server.kill()
    assert all("dropping frame" in error for error in rig.errors("top"))
