"""What runs in the gates' own process: one thread, so that nothing else can make a gate late."""

import contextlib
import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict
from typing import Any, Final, NoReturn

from foundation.errors import InputError, Unavailable
from plant.config import Plant
from plant.gate.gates import Gates, Judged
from plant.gate.open import open_gates

_log = logging.getLogger(__name__)
_PRIORITY: Final = 1
_PR_SET_TIMERSLACK: Final = 29
_SPIN_S: Final = 0.0003
"""So long before the gate has to move the process sleeps no more: waking up would take as long."""
_LONGEST_SPIN_S: Final = 0.002
"""A belt that is slower than it was makes the moment come later."""
_SWITCH_S: Final = 0.0002
"""After so long an encoder's thread lets the gates' thread run."""
_SHORTEST_SLEEP_S: Final = 0.0002
_REPORT_EVERY_S: Final = 0.1
_QUIET_S: Final = 0.002
"""Reports are written where the gates have at least so much time,"""
_REPORT_LATEST_S: Final = 1.0
"""but after so long in any case: without reports the process would count as one that hangs."""
_NO_SIGN_OF_LIFE_S: Final = 2.0
_MOST_FIGURES: Final = 1000
_LARGEST_NEWS: Final = 1 << 12
_MOST_PACKETS: Final = 50
_NOT_HEARD_YET: Final = "the line has not been heard yet"


def live(plant: Plant, channel: socket.socket) -> NoReturn:
    """Open encoder and outputs, and turn until the other process ends; called right after the fork.

    Args:
        plant: with at least one gate.
        channel: to the other process, of whole packets.
    """
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # to the whole group; the other process tells when to end
        line = _LineHeard()
        _come_first()
        try:
            gates = open_gates(plant, line.trouble)
            line.recovering = plant.line.control is not None
        except InputError as error:
            channel.send(json.dumps(("refused", isinstance(error, Unavailable), str(error))).encode())
        else:
            channel.send(b'["ready"]')
            gc.collect()
            gc.freeze()  # what was imported is not looked through again
            _Turning(gates, line, channel).run()
            gates.close()
            code = 0
    except BaseException:
        _log.exception("the gates")
    finally:
        os._exit(code)


class _LineHeard:
    """What the other process last said of the line.

    Attributes:
        recovering: whether the parts that were on their way before this process began are not known yet.
    """

    def __init__(self) -> None:
        self.recovering = False
        self._said: str | None = _NOT_HEARD_YET
        self._heard_s = time.monotonic()

    def hear(self, trouble: str | None) -> None:
        self._said, self._heard_s = trouble, time.monotonic()

    def trouble(self) -> str | None:
        if time.monotonic() - self._heard_s > _NO_SIGN_OF_LIFE_S:
            return "inspectd-plant gives no sign of life to its gates"
        if self._said is None and self.recovering:
            return "the line's journal is being asked what is on its way"
        return self._said


class _Turning:
    """One thread, without anything beside it that holds the interpreter."""

    def __init__(self, gates: Gates, line: _LineHeard, channel: socket.socket) -> None:
        self._gates = gates
        self._line = line
        self._channel = channel
        self._has_asked = not line.recovering
        self._margins: deque[tuple[str, float]] = deque(maxlen=_MOST_FIGURES)
        self._timings: deque[tuple[str, float]] = deque(maxlen=_MOST_FIGURES)
        gates.on_margin = lambda *figure: self._margins.append(figure)
        gates.on_timing = lambda *figure: self._timings.append(figure)
        self._reported_s = 0.0

    def run(self) -> None:
        """Turn until the other process has ended."""
        slept_s = time.monotonic()
        while True:
            wait_s = self._turn()
            now_s = time.monotonic()
            if now_s - self._reported_s >= (_REPORT_EVERY_S if wait_s > _QUIET_S else _REPORT_LATEST_S):
                self._report(now_s)
            if wait_s <= _SPIN_S and now_s - slept_s < _LONGEST_SPIN_S:
                continue
            if not self._listen(max(_SHORTEST_SLEEP_S, wait_s - _SPIN_S)):
                return
            slept_s = time.monotonic()

    def _turn(self) -> float:
        try:
            wait_s = self._gates.turn()
        except Exception:
            _log.exception("gates")
            self._gates.fail()
            time.sleep(1.0)
            return 0.0
        if not self._has_asked and self._gates.has_looked:
            self._has_asked = True
            captured_at = self._gates.oldest_on_its_way()
            self._line.recovering = captured_at is not None
            if captured_at is not None:
                self._channel.send(json.dumps(("recover", captured_at)).encode())
        return wait_s

    def _listen(self, timeout_s: float) -> bool:
        """Wait for packets; False when the other process has ended."""
        for _ in range(_MOST_PACKETS):
            # select() alone waits for less than a millisecond.
            if not select.select([self._channel], [], [], timeout_s)[0]:
                return True
            try:
                packet = self._channel.recv(_LARGEST_NEWS)
            except ConnectionError:
                return False
            if not packet:
                return False
            self._take(*json.loads(packet))
            timeout_s = 0.0
        return True

    def _take(self, kind: str, *content: Any) -> None:
        match kind:
            case "judged":
                self._gates.came(Judged(*content))
            case "line":
                self._line.hear(*content)
            case "recovered":
                self._line.recovering = False
                [complete] = content
                if not complete:
                    self._gates.distrust_what_is_on_its_way()

    def _report(self, now_s: float) -> None:
        """Tell how the gates fare; figures that find no room wait."""
        gates = {name: asdict(gate.now()) for name, gate in self._gates.gates.items()}
        packet = json.dumps(("gates", gates, list(self._margins), list(self._timings))).encode()
        self._reported_s = now_s
        with contextlib.suppress(OSError):  # full, or its end shows in the next wait
            self._channel.send(packet, socket.MSG_DONTWAIT)
            self._margins.clear()
            self._timings.clear()


def _come_first() -> None:
    """Have the system run this process before all others as soon as it wakes; it sleeps nearly always.

    Threads that encoders and outputs start afterwards are alike.
    """
    sys.setswitchinterval(_SWITCH_S)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # by default it may be woken 50 µs late
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError as error:
        _log.info(
            "the gates' process has no realtime priority (%s): on a busy machine it may wake late",
            error.strerror,
        )
