"""What runs in the gates' own process: one thread, so that nothing else can make a gate late."""

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
from plant.gate.hearing import Hearing
from plant.gate.open import open_gates
from plant.section import seconds

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
_MOST_FIGURES: Final = 1000
_LARGEST_NEWS: Final = 1 << 12
_MOST_AT_ONCE: Final = 50
_HEAR_EVERY_S: Final = 0.05


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
        _come_first()
        try:
            hearing = Hearing(plant.line, seconds(plant.config.silence))
            hearing.recovering = plant.line.control is not None
            gates = open_gates(plant, hearing.trouble)
        except InputError as error:
            _tell(channel, "refused", isinstance(error, Unavailable), str(error))
        else:
            _tell(channel, "ready")
            gc.collect()
            gc.freeze()  # what was imported is not looked through again
            _Turning(gates, hearing, channel).run()
            gates.close()
            code = 0
    except BaseException:
        _log.exception("the gates")
    finally:
        os._exit(code)


class _Turning:
    """One thread, without anything beside it that holds the interpreter."""

    def __init__(self, gates: Gates, hearing: Hearing, channel: socket.socket) -> None:
        self._gates = gates
        self._hearing = hearing
        self._channel = channel
        self._has_asked = not hearing.recovering
        self._heard_s = 0.0
        self._more = False
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
        # What was published before the line was heard is in the journal by now, and the rest is heard.
        if not self._has_asked and self._gates.has_looked and self._hearing.begun:
            captured_at = self._gates.oldest_on_its_way()
            self._hearing.recovering = captured_at is not None
            self._has_asked = captured_at is None or _tell(self._channel, "recover", captured_at)
        return wait_s

    def _listen(self, timeout_s: float) -> bool:
        """Wait for verdicts and packets; False when the other process has ended."""
        # select() alone waits for less than a millisecond.
        watched = [self._channel.fileno(), self._hearing.fileno()]
        ready = select.select(watched, [], [], 0.0 if self._more else timeout_s)[0]
        if self._hearing.fileno() in ready or self._more or time.monotonic() - self._heard_s > _HEAR_EVERY_S:
            self._hear()
        for _ in range(_MOST_AT_ONCE):
            if self._channel.fileno() not in ready:
                break
            try:
                packet = self._channel.recv(_LARGEST_NEWS)
            except ConnectionError:
                return False
            if not packet:
                return False
            self._take(*json.loads(packet))
            ready = select.select([self._channel.fileno()], [], [], 0.0)[0]
        return True

    def _hear(self) -> None:
        """Take what the line has published, and notice when it is silent."""
        self._heard_s = time.monotonic()
        for _ in range(_MOST_AT_ONCE):
            verdict = self._hearing.take()
            if verdict is None:
                break
            self._gates.came(Judged.of(verdict, time.monotonic(), time.time()))
        self._more = verdict is not None

    def _take(self, kind: str, *content: Any) -> None:
        match kind:
            case "judged":
                self._gates.came(Judged(*content))
            case "recovered":
                self._hearing.recovering = False
                [complete] = content
                if not complete:
                    self._gates.distrust_what_is_on_its_way()

    def _report(self, now_s: float) -> None:
        """Tell how the gates fare, and what they missed; what finds no room waits."""
        gates = {name: asdict(gate.now()) for name, gate in self._gates.gates.items()}
        self._reported_s = now_s
        missed = self._hearing.missed
        while missed and _tell(self._channel, "missed", missed[0].boot, missed[0].first, missed[0].last):
            missed.popleft()
        if _tell(self._channel, "gates", gates, list(self._margins), list(self._timings)):
            self._margins.clear()
            self._timings.clear()


def _tell(channel: socket.socket, *packet: object) -> bool:
    """Tell the other process, unless it takes nothing now; that it has ended shows in the next wait."""
    try:
        channel.send(json.dumps(packet).encode(), socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


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
