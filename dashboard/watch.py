"""All that the dashboard knows and does about one line."""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from dashboard.causes import Cause, Known, causes
from dashboard.config import DashboardConfig
from dashboard.copying import Copying
from dashboard.database import DatabaseFailed
from dashboard.labels import Labels
from dashboard.listening import Listening
from dashboard.records import counts, microseconds, shown
from dashboard.rollup import Rollup
from dashboard.trends import unusual
from foundation.errors import InputError, Unavailable
from lines.line_config import LineConfig

_log = logging.getLogger(__name__)
_MB: Final = 1_000_000
_HOUR_US: Final = 3_600_000_000
_LOOK_AT_DISKS_S: Final = 10.0
_LOOK_AT_REJECTS_S: Final = 60.0
_FASTEST_COUNTS_S: Final = 0.5


class LineWatch:
    """One line: its roll-up, who listens to it, who copies, and what is wrong.

    Attributes:
        line: its config, as it was read last.
        rollup: None when it cannot be opened; ``own`` then says why.
        tell: called with what changed and by whom, from any thread, for pages that are open.
    """

    def __init__(self, line: LineConfig, config: DashboardConfig, labels: Labels | None) -> None:
        self.line = line
        self.config = config
        self.labels = labels
        self.rollup: Rollup | None = None
        self.tell: Callable[[str, str | None], Any] = lambda what, by: None
        self.change_turn = threading.Lock()
        """Held by whoever changes the line's threshold."""
        self._own: dict[str, str] = {}
        self._open: dict[str, tuple[int, Cause]] = {}
        """Causes that hold now: since when, and which."""
        self._state: tuple[str, float] = ("never_heard", time.time() * 1000)
        self._disks: tuple[float, list[tuple[str, float]]] = (-_LOOK_AT_DISKS_S, [])
        self._rejects: tuple[float, tuple[float, float] | None] = (-_LOOK_AT_REJECTS_S, None)
        self._counted: tuple[float, dict[str, Any]] = (-_FASTEST_COUNTS_S, {})
        self._labels_there = False
        self._read_at_ns = _changed_ns(line.file)
        self.copying: Copying | None = None
        file = config.state / f"{line.name}.rollup"
        try:
            self.rollup = _opened(file, line.name)
        except InputError as error:
            _log.warning("%s", error)
            self._own["rollup_failed"] = str(error)
        else:
            self.copying = Copying(
                line,
                self.rollup,
                keep_days=config.keep_days,
                most_verdicts=config.most_verdicts,
                changed=lambda: self.tell("products", None),
            )
        copying = self.copying
        self.listening = Listening(line, came=(lambda *_: None) if copying is None else copying.came)

    def start(self) -> None:
        """Begin to listen and to copy."""
        self.listening.start()
        if self.copying is not None:
            self.copying.start()

    def close(self) -> None:
        """End copying and close the roll-up."""
        if self.copying is not None:
            self.copying.close()
        if self.rollup is not None:
            self.rollup.close()

    def refresh(self) -> None:
        """Read the line's config again if its file changed; what cannot be read leaves all as it was."""
        changed_ns = _changed_ns(self.line.file)
        if changed_ns == self._read_at_ns:
            return
        self._read_at_ns = changed_ns
        try:
            line = self.line.read_again()
        except InputError as error:
            _log.warning("%s", error)
            return
        # Addresses and the journal's place change with a start of the line, and of the dashboard.
        from dataclasses import replace

        self.line = replace(
            self.line,
            products=line.products,
            archive=line.archive,
            deadline_ms=line.deadline_ms,
            signed=line.signed,
        )

    def need_rollup(self) -> Rollup:
        """Give the roll-up.

        Raises:
            DatabaseFailed: it could not be opened.
        """
        if self.rollup is None:
            raise DatabaseFailed(self._own["rollup_failed"])
        return self.rollup

    def trouble(self) -> list[dict[str, Any]]:
        """List what the dashboard itself cannot do for this line."""
        found: list[dict[str, Any]] = [
            {"code": code, "values": {}, "detail": detail} for code, detail in self._own.items()
        ]
        if self.copying is not None and self.copying.trouble is not None:
            found.append(self.copying.trouble.content())
        if self.labels is None or self.labels.damaged is not None:
            detail = "the label file could not be opened" if self.labels is None else self.labels.damaged
            code = "labels_failed" if self.labels is None else "labels_altered"
            found.append({"code": code, "values": {}, "detail": detail})
        if self.line.journal is None:
            found.append({"code": "no_journal", "values": {}, "detail": None})
        if self.line.control is None:
            found.append({"code": "no_control", "values": {}, "detail": None})
        if self.line.archive is not None and not _readable(self.line.archive):
            found.append({"code": "archive_unreadable", "values": {}, "detail": str(self.line.archive)})
        return found

    def causes(self) -> list[tuple[int, Cause]]:
        """List what is wrong now, the first cause first, each with since when (microseconds since 1970)."""
        return list(self._open.values())

    def look(self) -> None:
        """Find out what is wrong, and note what began and ended; called about each second."""
        now_us = time.time_ns() // 1000
        found = {cause.key: cause for cause in causes(self._known())}
        ended = {key: self._open[key] for key in self._open.keys() - found.keys()}
        began = found.keys() - self._open.keys()
        self._open = {
            key: (self._open[key][0] if key in self._open else now_us, cause) for key, cause in found.items()
        }
        code = self._code()
        if code != self._state[0]:
            self._state = (code, now_us / 1000)
        if self.rollup is not None and ended:
            try:
                with self.rollup.transaction():
                    for since_us, cause in ended.values():
                        content = {
                            "key": cause.key,
                            "code": cause.code,
                            "subject": cause.subject,
                            "values": cause.values,
                            "detail": cause.detail,
                            "until_us": now_us,
                        }
                        self.rollup.mark(since_us, "cause", content)
            except DatabaseFailed as error:
                _log.warning("%s", error)
        if began or ended:
            self.tell("health", None)
        self._bring_labels_over()

    def _bring_labels_over(self) -> None:
        """Bring what people said into a roll-up that was copied anew, once all verdicts are there."""
        if self._labels_there or self.labels is None or self.rollup is None or self.copying is None:
            return
        if self.copying.caught_up.is_set():
            name, labels = self.line.name, self.labels
            self._labels_there = True
            try:
                self.rollup.label(
                    (boot, seq, *labels.summary(name, boot, seq)) for boot, seq in labels.labelled(name)
                )
            except DatabaseFailed as error:
                self._labels_there = False
                _log.warning("%s", error)

    def summary(self) -> dict[str, Any]:
        """Give the line's state for the list of lines."""
        counted = self._counts()
        return {
            "line": self.line.name,
            "state": self._sentence(),
            "causes": sum(cause.severity != "watch" for _, cause in self.causes()),
            "rejects": {name: counted[name]["reject"] for name in ("minute", "hour", "shift")},
            "product": self.product,
        }

    @property
    def product(self) -> str | None:
        """What is judged now; None where the line names no product, or was never heard."""
        health = self.listening.health
        return None if health is None else health.product

    @property
    def threshold(self) -> float | None:
        """By which the newest verdict was made; None without one."""
        newest = max(self.listening.last.values(), key=lambda verdict: verdict.captured_at, default=None)
        if newest is not None:
            return newest.threshold
        if self.rollup is not None:
            found = self.rollup.fetch("SELECT threshold FROM verdicts ORDER BY row DESC LIMIT 1")
            return None if not found else float(found[0][0])
        return None

    @property
    def model(self) -> str | None:
        """That gave the newest verdict; None without one."""
        newest = max(self.listening.last.values(), key=lambda verdict: verdict.captured_at, default=None)
        if newest is not None:
            return newest.model
        if self.rollup is not None:
            found = self.rollup.fetch("SELECT model FROM verdicts ORDER BY row DESC LIMIT 1")
            return None if not found else self.rollup.name_of(found[0][0])
        return None

    def state(self) -> dict[str, Any]:
        """Give what the Line page shows, without pictures and lists of rejects."""
        health, listening = self.listening.health, self.listening
        counted = self._counts()
        content: dict[str, Any] = {
            "line": self.line.name,
            "state": self._sentence(),
            "uptime_s": None,
            "boot": None,
            "product": self.product,
            "engine": None,
            "model": self.model,
            "threshold": self.threshold,
            "waiting": None,
            "journal": None,
            "subscribers": {},
            "counts": counted,
            "per_second": round(sum(counted["minute"].values()) / 60, 2),
            "latency_ms": listening.latency(),
            "cameras": {},
            "copied_until_at": (self.copying.copied_until_us if self.copying is not None else 0) / 1000,
            "trouble": self.trouble(),
        }
        if health is None:
            return content
        content["uptime_s"], content["boot"] = health.uptime_s, health.boot
        content["engine"], content["waiting"] = health.engine, health.waiting
        if health.journal is not None:
            content["journal"] = {
                "state": health.journal.state,
                "entries": health.journal.entries,
                "error": health.journal.error,
            }
        content["subscribers"] = {
            name: {"present": subscriber.present, "unacknowledged": subscriber.unacknowledged}
            for name, subscriber in health.subscribers.items()
        }
        for name, camera in health.cameras.items():
            last = listening.last.get(name)
            content["cameras"][name] = {
                "state": camera.state,
                "captured": camera.captured,
                "faults": camera.faults,
                "error": camera.error,
                "last": None if last is None else shown(last, health.product, self.line.archive).short(),
            }
        return content

    def shift_began(self, now: datetime) -> tuple[datetime, str]:
        """Tell when the present shift began, and its name."""
        local = now.astimezone(self.config.time_zone)
        starts = []
        for day in (local - timedelta(days=1), local):
            for name in self.config.shifts:
                hour, minute = map(int, name.split(":"))
                starts.append((day.replace(hour=hour, minute=minute, second=0, microsecond=0), name))
        return max((start for start in starts if start[0] <= local), key=lambda start: start[0])

    def _counts(self) -> dict[str, Any]:
        made_s, counted = self._counted
        if time.monotonic() - made_s < _FASTEST_COUNTS_S:
            return counted
        now = datetime.now().astimezone()
        began, name = self.shift_began(now)
        counted = {"minute": self.listening.last_minute(), "hour": counts({}), "shift": counts({})}
        if self.rollup is not None:
            try:
                now_us = time.time_ns() // 1000
                counted["hour"] = counts(self.rollup.counts_since(now_us - _HOUR_US))
                counted["shift"] = counts(self.rollup.counts_since(int(began.timestamp() * 1e6)))
            except DatabaseFailed as error:
                _log.warning("%s", error)
        # The copy of the journal lags a little; what was heard in the last minute is in them all the same.
        for longer in ("hour", "shift") if now - began > timedelta(minutes=1) else ("hour",):
            counted[longer] = {
                decision: max(number, counted["minute"][decision])
                for decision, number in counted[longer].items()
            }
        counted["shift"] |= {"since_at": began.timestamp() * 1000, "name": name}
        self._counted = time.monotonic(), counted
        return counted

    def _sentence(self) -> dict[str, Any]:
        code, since_at = self._state
        values: dict[str, Any] = {}
        health = self.listening.health
        if code == "degraded":
            first = next((cause for _, cause in self.causes() if cause.severity != "watch"), None)
            if first is not None:
                values = {"cause": first.code, "subject": first.subject, "values": first.values}
        elif code in {"silent", "stopped"} and health is not None:
            values = {"last_at": microseconds(health.sent_at) / 1000}
        elif code == "failed" and health is not None:
            values = {"detail": health.error}
        return {"code": code, "values": values, "since_at": since_at}

    def _code(self) -> str:
        health = self.listening.health
        if health is None:
            return "never_heard"
        if health.state == "failed":
            return "failed"
        if self.listening.silent:
            return "stopped" if health.state == "stopping" else "silent"
        return health.state

    def _known(self) -> Known:
        latency = self.listening.latency()
        own = [(entry["code"], entry["detail"] or "") for entry in self.trouble()]
        return Known(
            health=self.listening.health,
            silent=self.listening.silent,
            minute=self.listening.last_minute(),
            reason=self.listening.reason(),
            p99_ms=None if latency is None else latency["p99"],
            deadline_ms=self.line.deadline_ms,
            own=[(code, detail) for code, detail in own if code not in {"labels_altered"}],
            disks=self._free(),
            labels_altered=None if self.labels is None else self.labels.damaged,
            clock_stepped=self._clock_stepped(),
            unusual=self._unusual(),
        )

    def _clock_stepped(self) -> bool:
        if self.rollup is None:
            return False
        try:
            since_us = time.time_ns() // 1000 - _HOUR_US
            return bool(
                self.rollup.fetch("SELECT 1 FROM marks WHERE at > ? AND code = 'clock' LIMIT 1", since_us)
            )
        except DatabaseFailed:
            return False

    def _unusual(self) -> tuple[float, float] | None:
        """Look whether more is rejected than usual; it changes by the quarter of an hour."""
        looked_s, found = self._rejects
        if self.rollup is None or time.monotonic() - looked_s < _LOOK_AT_REJECTS_S:
            return found
        try:
            found = unusual(self.rollup, time.time_ns() // 1000)
        except DatabaseFailed:
            found = None
        self._rejects = time.monotonic(), found
        return found

    def _free(self) -> list[tuple[str, float]]:
        """Look how much room the line's folders have; each disk once, and not at each turn."""
        looked_s, found = self._disks
        if time.monotonic() - looked_s < _LOOK_AT_DISKS_S:
            return found
        found, seen = [], set()
        journal = None if self.line.journal is None else self.line.journal.parent
        for folder in (journal, self.line.archive, self.config.state):
            try:
                if folder is not None and folder.stat().st_dev not in seen:
                    seen.add(folder.stat().st_dev)
                    found.append((str(folder), shutil.disk_usage(folder).free / _MB))
            except OSError:
                continue
        self._disks = time.monotonic(), found
        return found


def _opened(file: Path, line: str) -> Rollup:
    """Open a roll-up; one that is damaged is put aside, as it is a copy of what the journal has.

    Raises:
        InputError: it cannot be opened or made.
    """
    try:
        return Rollup(file, line)
    except Unavailable:
        raise
    except InputError as error:
        if "is damaged" not in str(error):
            raise
        _log.warning("%s: it is copied anew", error)
        for end in ("", "-wal", "-shm"):
            part = file.with_name(file.name + end)
            if part.exists():
                part.replace(part.with_name(f"{part.name}.damaged"))
        return Rollup(file, line)


def _readable(folder: Path) -> bool:
    try:
        next(folder.iterdir(), None)
    except OSError:
        return False
    return True


def _changed_ns(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
