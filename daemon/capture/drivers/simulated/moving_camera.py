import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from daemon.capture.drivers import Picture
from daemon.capture.drivers.simulated.address import read_options
from daemon.capture.drivers.simulated.moving_belt import InView, MovingBelt
from foundation.errors import InputError
from pictures.frames import Size

_OPTIONS: Final[dict[str, Callable[[str], Any]]] = {
    "seed": int,
    "defects": float,
    "kinds": str,
    "width": int,
    "height": int,
    "diameter": int,
    "speed": float,
    "stops": float,
    "parts": int,
    "halt": int,
    "truth": Path,
}
_USUAL_FPS: Final = 30.0


class MovingBeltCamera:
    """A free-running camera over a moving belt: ``simulated://belt?seed=1&parts=100&truth=FILE``.

    ``Picture.parts`` holds the truth. With ``truth=FILE`` a line of JSON is written about each part when it
    has left the picture: its number and defect, and from which to which frame it was in view, and whole.
    """

    live = False

    def __init__(self, address: str, *, fps: float | None, first_frame: int = 1) -> None:
        if urlsplit(address).path not in {"", "/"}:
            raise InputError(f"{address}: expected simulated://belt?seed=1&parts=100")
        options, troubles = read_options(address, _OPTIONS)
        truth = options.pop("truth", None)
        for name in {"parts", "halt"} & options.keys():
            if options[name] < 1:
                raise InputError(f"{address}: {name}: found {options[name]}; expected 1 or more")
        try:
            self._belt = MovingBelt(**options)
        except InputError as error:
            raise InputError(f"{address}: {error}") from error
        self.picture_size: Size | None = Size(options.get("height", 240), options.get("width", 320))
        self._period_ns = round(1e9 / (fps or _USUAL_FPS))
        self._troubles = [trouble for trouble in troubles if trouble.frame >= first_frame]
        self._seen: dict[int, dict[str, Any]] = {}
        self._truth: IO[str] | None = None
        if truth is not None:
            try:
                self._truth = truth.open("w", encoding="utf-8")
            except OSError as error:
                raise InputError(f"{address}: truth: {truth} cannot be written: {error.strerror}") from error
        for _ in range(first_frame - 1):  # the belt has gone on while the camera was away
            if not self._advance():
                break

    def grab(self) -> Picture | None:
        if not self._advance():
            return None
        frame, shown = self._belt.traffic.frame, self._belt.in_view()
        whole = [seen for seen in shown if seen.whole]
        middle = (self.picture_size or Size(0, 0)).width / 2
        nearest = min(whole, key=lambda seen: abs(seen.box.x + seen.box.width / 2 - middle), default=None)
        picture = Picture(
            self._belt.draw(),
            None if nearest is None else str(nearest.part),
            frame * self._period_ns,
            tuple((str(seen.part), seen.box) for seen in shown),
        )
        for trouble in self._troubles:
            picture = trouble.befall(frame, picture)
        return picture

    def close(self) -> None:
        if self._truth is not None:
            self._truth.close()

    def _advance(self) -> bool:
        goes_on = self._belt.advance()
        if self._truth is not None:
            self._note(self._truth, self._belt.in_view() if goes_on else [])
        return goes_on

    def _note(self, truth: IO[str], shown: list[InView]) -> None:
        """Write the truth about the parts that have left."""
        frame = self._belt.traffic.frame
        for seen in shown:
            index = seen.part.index
            known = self._seen.setdefault(
                index, {"part": index, "defect": seen.part.defect, "seen": [frame, frame], "whole": None}
            )
            known["seen"][1] = frame
            if seen.whole:
                known["whole"] = [(known["whole"] or [frame])[0], frame]
        here = {seen.part.index for seen in shown}
        for index in [index for index in self._seen if index not in here]:
            truth.write(json.dumps(self._seen.pop(index)) + "\n")
            truth.flush()
