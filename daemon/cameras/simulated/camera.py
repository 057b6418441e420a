from urllib.parse import parse_qsl, urlsplit

from daemon.cameras import Picture
from daemon.cameras.simulated.line import SimulatedLine
from engine_runtime.errors import InputError
from engine_runtime.frames import Size

_OPTIONS = {"seed": int, "defects": float, "width": int, "height": int, "parts": int}


class SimulatedCamera:
    """The simulated line as a camera: ``simulated://?seed=1&defects=0.1&width=512&height=512&parts=100``.

    ``Picture.part`` holds the truth. Without ``parts`` the belt never ends.
    """

    live = False

    def __init__(self, address: str) -> None:
        options = _options(address)
        self._parts = int(options.pop("parts")) if "parts" in options else None
        size = Size(int(options.get("height", 512)), int(options.get("width", 512)))
        self.picture_size: Size | None = size
        try:
            self._line = SimulatedLine(
                seed=int(options.get("seed", 0)),
                defects=options.get("defects", 0.0),
                width=size.width,
                height=size.height,
            )
        except InputError as error:
            raise InputError(f"{address}: {error}") from error
        self._next = 0

    def grab(self) -> Picture | None:
        if self._next == self._parts:
            return None
        pixels, part = self._line.frame(self._next)
        self._next += 1
        return Picture(pixels, str(part))

    def close(self) -> None:
        pass


def _options(address: str) -> dict[str, float]:
    parts = urlsplit(address)
    if parts.netloc or parts.path not in {"", "/"}:
        raise InputError(f"{address}: expected simulated://?seed=1&defects=0.1")
    options: dict[str, float] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise InputError(f"{address}: unknown option {name}; expected one of {', '.join(_OPTIONS)}")
        try:
            options[name] = _OPTIONS[name](text)
        except ValueError as error:
            raise InputError(f"{address}: {name} is {text!r}; expected a number") from error
    return options
