import hashlib
from typing import Final

import cv2
import numpy as np

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings, Picture
from pictures.frames import Frame, Size

_MOST_RESIZED: Final = 3  # pictures of another size before the camera is opened again
_SAMPLED_ROWS: Final = 64  # every so many rows are compared first: pictures differ almost anywhere


class FrozenCamera(CameraFailed):
    """The camera delivers one picture again and again; ``digest`` is that picture's."""

    def __init__(self, message: str, digest: bytes) -> None:
        super().__init__(message)
        self.digest = digest


class Suspicion:
    """Looks at the pictures of one opened camera for signs that it shows no parts.

    Each picture goes through `examine`, and through `examine_stored` as the engine will see it. A picture
    they refuse gets its fault verdict. After that `give_up` fails if the camera has to be opened again.
    """

    def __init__(self, settings: CameraSettings, picture_size: Size | None, frozen: bytes | None) -> None:
        """Suspect nothing yet.

        Args:
            settings: say what is looked for.
            picture_size: of all pictures; None when they may differ.
            frozen: digest of the picture at which the camera was found frozen before it was opened now.
        """
        self._settings = settings
        self._size = picture_size
        self._resized = 0
        self._device_ns: int | None = None
        self._previous: Frame | None = None
        self._same = 1
        self._frozen_before = frozen
        self._failure: CameraFailed | None = None

    def examine(self, picture: Picture) -> None:
        """Check size, time and novelty.

        Raises:
            BadPicture: the picture shows nothing that could be judged.
        """
        self._check_size(picture)
        self._check_time(picture)
        if self._settings.frozen_after is not None:
            self._check_novelty(picture, self._settings.frozen_after)

    def examine_stored(self, frame: Frame) -> None:
        """Check the brightness of what the engine will see.

        Raises:
            BadPicture: it is black.
        """
        black_below = self._settings.black_below
        if black_below is None:
            return
        level = sum(cv2.mean(frame.reshape(-1, frame.shape[-2], 3))[:3]) / 3  # tiles one below the other
        if level < black_below:
            raise BadPicture(f"black: its mean grey level {level:.1f} is below {black_below:g}", None)

    def give_up(self) -> None:
        """Fail when opening the camera again is the only thing left to do.

        Raises:
            CameraFailed: says why.
        """
        if self._failure is not None:
            raise self._failure

    def _check_size(self, picture: Picture) -> None:
        height, width = picture.pixels.shape[:2]
        if self._size is None or (height, width) == self._size:
            self._resized = 0
            return
        self._resized += 1
        message = f"a picture of {width}×{height} pixels; expected {self._size.width}×{self._size.height}"
        if self._resized == _MOST_RESIZED:
            self._failure = CameraFailed(f"its pictures have another size: {message}")
        raise BadPicture(message, picture.part)

    def _check_time(self, picture: Picture) -> None:
        before_ns, self._device_ns = self._device_ns, picture.device_ns
        if picture.device_ns is None or before_ns is None or picture.device_ns > before_ns:
            return
        back_ms = (before_ns - picture.device_ns) / 1e6
        what = f"goes back by {back_ms:g} ms" if back_ms else "repeats"
        raise BadPicture(f"the device's timestamp {what}", picture.part)

    def _check_novelty(self, picture: Picture, frozen_after: int) -> None:
        previous, self._previous = self._previous, picture.pixels
        self._same = self._same + 1 if previous is not None and _equal(previous, picture.pixels) else 1
        still = self._frozen_before is not None and _digest(picture.pixels) == self._frozen_before
        if still:
            message = "frozen: still the picture that it froze on before"
        elif self._same >= frozen_after:
            message = f"frozen: the same picture {self._same} times"
        else:
            self._frozen_before = None
            return
        self._failure = FrozenCamera(message, _digest(picture.pixels))
        raise BadPicture(message, picture.part)


def _equal(first: Frame, second: Frame) -> bool:
    return np.array_equal(first[::_SAMPLED_ROWS], second[::_SAMPLED_ROWS]) and np.array_equal(first, second)


def _digest(pixels: Frame) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
