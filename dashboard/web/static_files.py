"""The page's own files, compressed once and kept until they change."""

import gzip
import hashlib
import mimetypes
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from dashboard.web.answers import Refused

_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


class _Kept(NamedTuple):
    changed_ns: int
    etag: str
    plain: bytes
    compressed: bytes | None
    kind: str


class StaticFiles:
    """Serves the folder ``static``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(str(files("dashboard") / "static"))
        self._kept: dict[str, _Kept] = {}

    def __call__(self, request: Request, name: str) -> Response:
        """Answer with a file.

        Raises:
            Refused: there is none of that name.
        """
        kept = self._file(name)
        headers = {"ETag": kept.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == kept.etag:
            return Response(status_code=304, headers=headers)
        content = kept.plain
        if kept.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = kept.compressed, "gzip"
        return Response(content, headers=headers, media_type=kept.kind)

    def _file(self, name: str) -> _Kept:
        parts = name.split("/")
        path = self._folder / name
        if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            raise Refused(404, "no_such", what="file", name=name[:80])
        try:
            changed_ns = path.stat().st_mtime_ns
            kept = self._kept.get(name)
            if kept is None or kept.changed_ns != changed_ns:
                plain = path.read_bytes()
                compressed = gzip.compress(plain, 9, mtime=0)
                self._kept[name] = kept = _Kept(
                    changed_ns,
                    f'"{hashlib.sha256(plain).hexdigest()[:20]}"',
                    plain,
                    compressed if len(compressed) < 0.9 * len(plain) else None,
                    _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream",
                )
        except OSError as error:
            raise Refused(404, "no_such", what="file", name=name[:80]) from error
        return kept
