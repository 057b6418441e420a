from pathlib import Path

from daemon.capture.drivers import Picture
from daemon.capture.drivers.decoder import Undecoded
from daemon.capture.drivers.video_reader import VideoBroken, VideoReader
from foundation.errors import InputError


class VideoFile:
    """A video file, once through or for ever. Image N is frame N, also after a restart.

    Places in it are found by counting pictures from its beginning: not every format can seek, and none to a
    picture's number.
    """

    live = False

    def __init__(self, path: Path, *, loop: bool, first_frame: int) -> None:
        """Open it; with ``first_frame`` N above 1 the first picture to come is the Nth.

        Raises:
            InputError: it is not a video that FFmpeg can read.
        """
        self._path = path
        self._loop = loop
        self._to_skip = first_frame - 1
        self._given = 0
        try:
            self._reader = self._opened()
        except VideoBroken as broken:
            raise InputError(
                f"{path}: {'is' if broken.is_no_video else 'does not open:'} {broken}"
            ) from broken
        self.picture_size = self._reader.picture_size

    def grab(self) -> Picture | None:
        undecoded = self._next()
        while undecoded is not None and self._to_skip > 0:
            self._to_skip -= 1
            undecoded = self._next()
        return None if undecoded is None else Picture(undecoded(), None)

    def close(self) -> None:
        self._reader.close()

    def _next(self) -> Undecoded | None:
        try:
            undecoded = next(iter(self._reader), None)
            if undecoded is None and self._loop and self._given:
                self._to_skip %= self._given  # whole rounds lead to where it stands
                self._given = 0
                self._reader.close()
                self._reader = self._opened()
                undecoded = next(iter(self._reader), None)
        except VideoBroken as broken:
            raise InputError(
                f"{self._path}: is damaged or cut short after picture {self._given}: {broken}"
            ) from broken
        self._given += undecoded is not None
        return undecoded

    def _opened(self) -> VideoReader:
        # An absolute path after a scheme of its own: FFmpeg takes what stands before a colon for a scheme.
        return VideoReader(f"file:{self._path.absolute()}", upright=True)
