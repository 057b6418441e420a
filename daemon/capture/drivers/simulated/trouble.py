import os
import re
import resource
import threading
from typing import Final

import numpy as np

from daemon.capture.drivers import Picture
from foundation.errors import InputError

TROUBLES: Final = ("black", "dark", "frozen", "resized", "backwards", "crash", "hang", "leak")
"""What may befall a simulated camera at one of its frames."""

_FRAMES_WITHOUT_LIGHT: Final = {"black": 10, "dark": 60}
_DARKNESS: Final = 16  # how many times less light reaches the sensor when the lamp is off
_BACK_NS: Final = 1_000_000_000
_LEAK_BYTES: Final = 64_000_000
_TEXT: Final = re.compile(rf"({'|'.join(TROUBLES)})@([1-9][0-9]{{0,14}})")


class Trouble:
    """One thing that goes wrong at a frame of a simulated camera, once in a run of the daemon.

    Attributes:
        kind: one of `TROUBLES`.
        frame: number of the first frame that it befalls.
    """

    def __init__(self, kind: str, frame: int) -> None:
        self.kind = kind
        self.frame = frame
        self._last: Picture | None = None
        self._leaked: list[bytearray] = []

    @classmethod
    def parse(cls, text: str) -> "Trouble":
        """Read ``KIND@FRAME``.

        Raises:
            InputError: the text is of another form.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise InputError(
                f"trouble: found {text!r}; expected KIND@FRAME with a KIND of {', '.join(TROUBLES)}"
            )
        return cls(found[1], int(found[2]))

    def befall(self, frame: int, picture: Picture) -> Picture:
        """Give what the camera delivers in place of a picture.

        Args:
            frame: the picture's number.
            picture: what it would be without trouble.
        """
        if frame < self.frame:
            return picture
        match self.kind:
            case "black" | "dark" if frame < self.frame + _FRAMES_WITHOUT_LIGHT[self.kind]:
                dimmed = picture.pixels // _DARKNESS if self.kind == "dark" else np.zeros_like(picture.pixels)
                return picture._replace(pixels=dimmed)
            case "frozen":
                self._last = self._last or picture
                return picture._replace(pixels=self._last.pixels)
            case "resized":
                return picture._replace(pixels=np.ascontiguousarray(picture.pixels[::2, ::2]))
            case "backwards" if frame == self.frame and picture.device_ns is not None:
                return picture._replace(device_ns=picture.device_ns - _BACK_NS)
            case "crash" if frame == self.frame:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a rehearsal leaves no core dump behind
                os.abort()
            case "hang" if frame == self.frame:
                threading.Event().wait()
            case "leak":
                self._leaked.append(bytearray(os.urandom(1)) * _LEAK_BYTES)
        return picture
