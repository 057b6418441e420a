"""A page of this machine on which regions are drawn over a picture."""

import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final

import cv2
from pydantic import TypeAdapter, ValidationError

from foundation.errors import InputError, refused_by_system
from pictures.frames import Frame
from pictures.mask import Region

_MOST_BYTES: Final = 4_000_000
_PAGE: Final = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' data:; "
    "script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_REGIONS: Final = TypeAdapter(tuple[Region, ...])

Save = Callable[[tuple[Region, ...]], str]
"""Writes the regions and gives a line that says so; raises ``InputError`` for regions that are no mask."""


class DrawingPage(ThreadingHTTPServer):
    """Serves the page to this machine alone, under an address that nobody can guess."""

    daemon_threads = True

    def __init__(self, picture: Frame, regions: tuple[Region, ...], save: Save, port: int = 0) -> None:
        """Begin to listen; ``serve_forever`` answers.

        Args:
            picture: H×W×3 uint8, BGR, over which is drawn.
            regions: that are there already.
            save: what becomes of them.
            port: on 127.0.0.1; a free one when 0.

        Raises:
            InputError: the port is not free.
        """
        try:
            super().__init__(("127.0.0.1", port), _Request)
        except OSError as error:
            raise refused_by_system(f"--port {port}: {error.strerror}", error) from error
        self.secret = secrets.token_urlsafe(16)
        self.png = cv2.imencode(".png", picture)[1].tobytes()
        height, width = picture.shape[:2]
        self.size = {"width": width, "height": height}
        self.regions, self.save = regions, save

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"


class _Request(BaseHTTPRequestHandler):
    server: DrawingPage
    server_version, sys_version = "inspectctl", ""
    timeout = 30

    def do_GET(self) -> None:
        name = self._name()
        if name == "picture.png":
            self._answer(200, "image/png", self.server.png)
        elif name == "regions":
            regions = [
                region.model_dump(mode="json", exclude_defaults=True) for region in self.server.regions
            ]
            self._json(200, {"picture": self.server.size, "regions": regions})
        elif name in _PAGE:
            file, kind = _PAGE[name]
            self._answer(200, kind, files(__package__).joinpath(file).read_bytes())
        else:
            self._json(404, {"said": "not found"})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self._name() != "regions" or not length.isdecimal() or int(length) > _MOST_BYTES:
            return self._json(404, {"said": "not found"})
        try:
            regions = _REGIONS.validate_json(self.rfile.read(int(length)))
            said = self.server.save(regions)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in first["loc"])
            return self._json(400, {"said": f"not saved: region {where}: {first['msg']}"})
        except InputError as error:
            return self._json(400, {"said": f"not saved: {error}"})
        self.server.regions = regions
        return self._json(200, {"said": said})

    def _name(self) -> str | None:
        """What of the page is asked for; None for who does not know the secret, or comes by another name."""
        host = f"127.0.0.1:{self.server.server_port}"
        start = f"/{self.server.secret}/"
        if self.headers.get("Host") not in {host, host.replace("127.0.0.1", "localhost")}:
            return None
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return None
        return self.path.removeprefix(start) if self.path.startswith(start) else None

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(content).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for key, value in _HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal belongs to the command."""
