from pathlib import Path

from daemon.cameras import Camera, CameraSettings
from engine_runtime.errors import InputError


def open_camera(settings: CameraSettings) -> Camera:
    """Open what the source names; the device's own library is imported only here.

    Raises:
        InputError: the source names nothing that exists.
        CameraFailed: it exists and does not open.
    """
    source = settings.source
    scheme = source.partition("://")[0] if "://" in source else None
    path = Path(source)
    if scheme == "simulated":
        from daemon.cameras.simulated.camera import SimulatedCamera

        return SimulatedCamera(source)
    if scheme is not None:
        from daemon.cameras.video import open_stream

        if scheme not in {"rtsp", "rtsps", "rtmp", "http", "https", "udp"}:
            raise InputError(f"{source}: unknown kind of address; expected rtsp://, http:// or simulated://")
        return open_stream(source)
    if path.is_dir():
        from daemon.cameras.folder import FolderCamera

        return FolderCamera(path, loop=settings.loop)
    if path.is_file():
        from daemon.cameras.video import open_video_file

        return open_video_file(path, loop=settings.loop)
    if path.parent == Path("/dev"):
        from daemon.cameras.video import open_device

        return open_device(settings)
    raise InputError(f"{source}: no such device, file or folder")
