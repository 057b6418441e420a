from typing import Final
from urllib.parse import urlsplit

from daemon.capture.drivers import Picture
from daemon.capture.drivers.simulated.address import read_options
from daemon.capture.drivers.simulated.line import SimulatedLine
from foundation.errors import InputError
from pictures.frames import Size

_OPTIONS: Final = {
    "seed": int,
    "defects": float,
    "kinds": str,
    "width": int,
    "height": int,
    "parts": int,
    "cached": int,
}
_CACHE_MB: Final = 2000
_CLOCK_NS: Final = 1_000_000  # what the simulated device's clock advances from part to part


class SimulatedCamera:
    """The simulated line as a camera: ``simulated://?seed=1&defects=0.1&width=512&height=512&parts=100``.

    ``Picture.part`` holds the truth. Without ``parts`` the belt never ends. With ``cached=N`` the first N
    parts are drawn once and come again and again. ``trouble=KIND@FRAME`` rehearses what may befall a camera.
    """

    live = False

    def __init__(self, address: str, *, first_frame: int = 1) -> None:
        parts = urlsplit(address)
        if parts.netloc or parts.path not in {"", "/"}:
            raise InputError(f"{address}: expected simulated://?seed=1&defects=0.1")
        options, troubles = read_options(address, _OPTIONS)
        self._parts: int | None = options.get("parts")
        size = Size(options.get("height", 512), options.get("width", 512))
        self.picture_size: Size | None = size
        self._next = first_frame - 1  # the belt has gone on while the camera was away
        # What came up before the camera was opened again is over.
        self._troubles = [trouble for trouble in troubles if trouble.frame >= first_frame]
        try:
            self._line = SimulatedLine(
                seed=options.get("seed", 0),
                defects=options.get("defects", 0.0),
                kinds=options.get("kinds", "local"),
                width=size.width,
                height=size.height,
            )
        except InputError as error:
            raise InputError(f"{address}: {error}") from error
        cached: int = options.get("cached", 0)
        most = int(_CACHE_MB * 1e6) // (size.height * size.width * 3)
        if "cached" in options and not 1 <= cached <= most:
            raise InputError(
                f"{address}: cached: found {cached}; expected 1 to {most} parts, {_CACHE_MB} MB of pictures"
            )
        self._cache = [self._draw(index) for index in range(cached)]

    def grab(self) -> Picture | None:
        if self._parts is not None and self._next >= self._parts:
            return None
        index, self._next = self._next, self._next + 1
        picture = self._cache[index % len(self._cache)] if self._cache else self._draw(index)
        picture = picture._replace(device_ns=self._next * _CLOCK_NS)
        for trouble in self._troubles:
            picture = trouble.befall(self._next, picture)
        return picture

    def close(self) -> None:
        pass

    def _draw(self, index: int) -> Picture:
        pixels, part = self._line.frame(index)
        return Picture(pixels, str(part))
