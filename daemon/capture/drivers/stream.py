from daemon.capture.drivers import BadPicture, CameraFailed, Picture
from daemon.capture.drivers.video_reader import VideoBroken, VideoReader
from foundation.secrets import masked


class StreamCamera:
    """A network stream: RTSP, MJPEG over HTTP, or whatever FFmpeg reads."""

    live = True

    def __init__(self, address: str, reader: VideoReader) -> None:
        self._named = masked(address)
        self._reader = reader
        self.picture_size = reader.picture_size

    def grab(self) -> Picture | None:
        try:
            undecoded = next(iter(self._reader), None)
        except VideoBroken as broken:
            raise CameraFailed(f"{self._named} stopped delivering frames: {broken}") from broken
        if undecoded is None:
            raise CameraFailed(f"{self._named} stopped delivering frames")
        return Picture(undecoded(), None)

    def close(self) -> None:
        self._reader.close()


class SnapshotCamera:
    """An address that answers each request with one picture."""

    live = False  # it waits until it is asked

    def __init__(self, address: str, first: VideoReader) -> None:
        """Take over the answer to the first request."""
        self._address = address
        self._answer: VideoReader | None = first
        self.picture_size = first.picture_size

    def grab(self) -> Picture | None:
        answer, self._answer = self._answer, None
        try:
            answer = answer or VideoReader(self._address)
            undecoded = next(iter(answer), None)
        except VideoBroken as broken:
            if broken.is_no_video or answer is not None:
                raise BadPicture(f"the snapshot is not a whole picture: {broken}", None) from broken
            raise CameraFailed(f"{masked(self._address)} does not answer: {broken}") from broken
        finally:
            if answer is not None:
                answer.close()
        if undecoded is None:
            raise BadPicture("the snapshot holds no picture", None)
        return Picture(undecoded(), None)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()


def open_stream(address: str) -> StreamCamera | SnapshotCamera:
    """Open a network stream, or an address of snapshots.

    Raises:
        CameraFailed: nothing answers there, or what answers is not a video; the text says why.
    """
    try:
        reader = VideoReader(address)
    except VideoBroken as broken:
        raise CameraFailed(f"{masked(address)} does not open: {broken}") from broken
    return SnapshotCamera(address, reader) if reader.is_still else StreamCamera(address, reader)
