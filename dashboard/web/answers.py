"""Answers and errors as JSON, and what is asked, checked: nothing that came from outside is believed."""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

_MOST_BODY: Final = 100_000


class Refused(Exception):
    """What was asked cannot be done; it becomes the answer."""

    def __init__(self, status: int, code: str, detail: str | None = None, **values: object) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.values = values

    def answer(self) -> Response:
        """Give it as the answer."""
        content = {"error": {"code": self.code, "values": self.values, "detail": self.detail}}
        return answer(content, self.status)


def answer(content: object, status: int = 200) -> Response:
    """Make an answer; infinite numbers, which JSON does not have, become null."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(
        text.encode(errors="replace"),
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


async def body(request: Request, *keys: str) -> dict[str, Any]:
    """Read a body of JSON.

    Args:
        request: whose.
        keys: that may occur.

    Raises:
        Refused: it is too large, not an object, or has another key.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(400, "bad_body", key="Content-Type", found=kind[:80], expected="application/json")
    received = b""
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MOST_BODY:
            raise Refused(413, "too_large", most=_MOST_BODY)
    try:
        content = json.loads(received or b"{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refused(400, "bad_body", key="", found="no JSON object", expected="a JSON object")
    for key in content.keys() - set(keys):
        raise Refused(400, "bad_body", key=key[:80], found="an unknown key", expected=", ".join(keys))
    return content


def text(content: Mapping[str, Any], key: str, *, least: int = 0, most: int = 500, default: str = "") -> str:
    """Take a text from a body.

    Raises:
        Refused: it is not a text of that length, or has characters that move a cursor.
    """
    found = content.get(key, default)
    if not isinstance(found, str) or not least <= len(found.strip()) <= most or _has_controls(found):
        raise Refused(400, "bad_body", key=key, found=_shown(found), expected=f"{least} to {most} characters")
    return found.strip()


def number(content: Mapping[str, Any], key: str) -> float:
    """Take a finite number from a body.

    Raises:
        Refused: it is something else.
    """
    found = content.get(key)
    if type(found) not in (int, float) or not math.isfinite(found):  # type: ignore[arg-type]
        raise Refused(400, "bad_body", key=key, found=_shown(found), expected="a number")
    return float(found)  # type: ignore[arg-type]


def _has_controls(found: str) -> bool:
    return any(
        character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character <= "\udfff"
        for character in found
    )


def _shown(found: object) -> str:
    return f"{found!r:.80}"


class Query:
    """What stands after the ? of an address."""

    def __init__(self, content: Mapping[str, str], *keys: str) -> None:
        """Take it.

        Args:
            content: as it came.
            keys: that may occur.

        Raises:
            Refused: another key occurs.
        """
        self._content = content
        for key in content.keys() - set(keys):
            raise Refused(400, "bad_query", key=key[:80], found="an unknown key", expected=", ".join(keys))

    def text(self, key: str, most: int = 200) -> str | None:
        """Give a text; None where it is not there.

        Raises:
            Refused: it is too long.
        """
        found = self._content.get(key)
        if found is not None and (len(found) > most or "\0" in found):
            raise self._wrong(key, f"at most {most} characters")
        return found or None

    def texts(self, key: str, allowed: Collection[str] | None = None) -> list[str]:
        """Give a list with commas between; empty where it is not there.

        Raises:
            Refused: one of them is not allowed.
        """
        found = self.text(key, 2000)
        entries = [] if found is None else found.split(",")
        if allowed is not None and not set(entries) <= set(allowed):
            raise self._wrong(key, f"some of {', '.join(sorted(allowed))}")
        return entries

    def one_of(self, key: str, allowed: Collection[str], default: str) -> str:
        """Give one of some words.

        Raises:
            Refused: it is another one.
        """
        found = self._content.get(key, default)
        if found not in allowed:
            raise self._wrong(key, f"one of {', '.join(allowed)}")
        return found

    def flag(self, key: str) -> bool:
        """Whether something is wanted; no, where it is not there.

        Raises:
            Refused: it is neither.
        """
        return self.one_of(key, ("true", "false"), "false") == "true"

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float | None:
        """Give a number between two.

        Raises:
            Refused: it is something else.
        """
        found = self._content.get(key)
        if found is None:
            return default
        try:
            value = float(found) if len(found) <= 40 and found.isascii() else math.nan
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise self._wrong(key, f"a number from {least:.15g} to {most:.15g}")
        return value

    def whole(self, key: str, least: int, most: int, default: int) -> int:
        """Give a whole number between two.

        Raises:
            Refused: it is something else.
        """
        found = self._content.get(key)
        if found is None:
            return default
        if not (found.isascii() and found.isdigit() and len(found) <= 18 and least <= int(found) <= most):
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return int(found)

    def _wrong(self, key: str, expected: str) -> Refused:
        return Refused(400, "bad_query", key=key, found=self._content[key][:80], expected=expected)
