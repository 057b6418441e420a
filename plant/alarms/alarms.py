"""Decides what is told: one message when a cause has lasted for a while, one when it is over for good."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from foundation.errors import InputError
from foundation.files import write_whole

_log = logging.getLogger(__name__)
_MOST_CAUSES: Final = 200


@dataclass(frozen=True, slots=True)
class Message:
    """What is told.

    Attributes:
        line: name of the line.
        cause: name of the cause, the same in both of its messages.
        state: "alarm", or "ok" when it is over.
        text: one line for people.
        since: when it began, or ended: ISO 8601, UTC.
    """

    line: str
    cause: str
    state: Literal["alarm", "ok"]
    text: str
    since: str


@dataclass(slots=True)
class _Cause:
    text: str
    began_s: float
    since: str
    told: bool = False
    gone_s: float | None = None
    gone: str = ""


class Alarms:
    """Remembers which causes last and which were told, also over a restart of this process."""

    def __init__(
        self, line: str, file: Path, *, after_s: float, ok_after_s: float, tell: Callable[[Message], object]
    ) -> None:
        """Go on with what was told before.

        Args:
            line: name of the line.
            file: where what was told is remembered.
            after_s: how long a cause lasts before it is told.
            ok_after_s: how long it is gone before that is told.
            tell: sends a message.
        """
        self._line = line
        self._file = file
        self._after_s = after_s
        self._ok_after_s = ok_after_s
        self._tell = tell
        self._causes = {
            name: _Cause(text, 0.0, since, told=True) for name, (text, since) in _read(file).items()
        }

    def look(self, now_s: float, found: Iterable[tuple[str, str]]) -> None:
        """Take what is wrong now: names and texts of causes; called about each second."""
        here = dict(list(found)[:_MOST_CAUSES])
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        changed = False
        for name, text in here.items():
            cause = self._causes.setdefault(name, _Cause(text, now_s, stamp))
            cause.text, cause.gone_s = text, None
            if not cause.told and now_s - cause.began_s >= self._after_s:
                cause.told = changed = True
                self._tell(Message(self._line, name, "alarm", text, cause.since))
        for name in self._causes.keys() - here.keys():
            cause = self._causes[name]
            if cause.gone_s is None:
                cause.gone_s, cause.gone = now_s, stamp
            if not cause.told:
                del self._causes[name]
            elif now_s - cause.gone_s >= self._ok_after_s:
                del self._causes[name]
                changed = True
                self._tell(Message(self._line, name, "ok", f"ok again: {cause.text}", cause.gone))
        if changed:
            self._write()

    def _write(self) -> None:
        content = {name: [cause.text, cause.since] for name, cause in self._causes.items() if cause.told}
        try:
            write_whole(self._file, json.dumps(content).encode(), 0o640)
        except InputError as error:
            _log.warning("%s", error)


def _read(file: Path) -> dict[str, tuple[str, str]]:
    try:
        content = json.loads(file.read_bytes())
        return {str(name): (str(text), str(since)) for name, (text, since) in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("%s cannot be read, alarms begin anew: %s", file, error)
        return {}


def content_of(message: Message) -> dict[str, str]:
    """Give a message as JSON has it."""
    return asdict(message)
