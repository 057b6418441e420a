from pathlib import Path

from daemon.capture.drivers import Camera, CameraSettings
from foundation.errors import InputError


def open_camera(settings: CameraSettings, *, first_frame: int = 1) -> Camera:
    """Open what the source names; the device's own library is imported only here.

    Args:
        settings: name the source.
        first_frame: number of the first frame to come. Above 1 the camera was open before, and a source that
            can go on where it was does so: picture N of a folder is frame N.

    Raises:
        InputError: the source names nothing that exists.
        CameraFailed: it exists and does not open.
    """
    source = settings.source
    scheme = source.partition("://")[0] if "://" in source else None
    path = Path(source)
    if scheme == "simulated":
        return _open_simulated(settings, first_frame)
    if scheme == "aravis":
        from daemon.capture.drivers.aravis import ArvCamera

        return ArvCamera(settings)
    if scheme is not None:
        from daemon.capture.drivers.stream import open_stream

        if scheme not in {"rtsp", "rtsps", "rtmp", "http", "https", "udp"}:
            raise InputError(
                f"{source}: unknown kind of address; expected rtsp://, http://, aravis:// or simulated://"
            )
        return open_stream(source)
    if path.is_dir():
        from daemon.capture.drivers.folder import FolderCamera

        return FolderCamera(path, loop=settings.loop, first_frame=first_frame)
    if path.is_file():
        from daemon.capture.drivers.video_file import VideoFile

        return VideoFile(path, loop=settings.loop, first_frame=first_frame)
    if Path("/dev") in path.parents:  # also /dev/v4l/by-id/…, names that a camera keeps on every port
        from daemon.capture.drivers.v4l2 import open_device

        return open_device(settings)
    raise InputError(f"{source}: no such device, file or folder")


def _open_simulated(settings: CameraSettings, first_frame: int) -> Camera:
    if settings.source.startswith("simulated://belt"):
        from daemon.capture.drivers.simulated.moving_camera import MovingBeltCamera

        return MovingBeltCamera(settings.source, fps=settings.fps, first_frame=first_frame)
    from daemon.capture.drivers.simulated.camera import SimulatedCamera

    return SimulatedCamera(settings.source, first_frame=first_frame)
