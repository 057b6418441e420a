"""The gates in a process of their own: nothing else there can make one of them late.

It is forked before this process has threads, and speaks with it in packets of JSON. Verdicts and how the line
fares go there; how the gates fare, and their figures, come back. When either ends the other does, too: then
every output rests.
"""

import contextlib
import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from foundation.errors import InputError, Unavailable
from plant.config import Plant
from plant.gate.gates import GateCounts, GateNow, Gates, Judged
from plant.gate.open import open_gates
from plant.outputs import LineNow
from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage, Verdict

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
_TELL_EVERY_S: Final = 0.1
_NO_SIGN_OF_LIFE_S: Final = 2.0
_HANGS_AFTER_S: Final = 5.0
_MOST_FIGURES: Final = 1000
_LARGEST_REPORT: Final = 1 << 18
_LARGEST_NEWS: Final = 1 << 12
_MOST_PACKETS: Final = 50
_LONGEST_RECOVERY_S: Final = 60.0
_NOT_HEARD_YET: Final = "the line has not been heard yet"


class GateProcess:
    """The gates, as the rest of ``inspectd-plant`` sees them.

    Attributes:
        gates: how each fares, by name; the last that was told.
        on_margin: told of each part's gate, and how many seconds before its place reached the gate its
            verdict was known; negative when it came too late.
        on_timing: told of each change's gate, and how many seconds after the right moment it was done.
        ended: why the process has ended; None while it runs.
    """

    def __init__(self, plant: Plant) -> None:
        """Fork, and open encoder and outputs there; call it before any thread is started.

        Raises:
            InputError: a device is not there, or something else has it.
        """
        self.gates = {
            name: GateNow("not begun", _stamp(), None, 0, GateCounts()) for name in plant.config.gates
        }
        self.on_margin: Callable[[str, float], object] = lambda *_: None
        self.on_timing: Callable[[str, float], object] = lambda *_: None
        self.ended: str | None = None
        self._line = plant.line
        self._now: Callable[[], LineNow] = lambda: LineNow(plant.line.name, None, silent=True)
        self._stopping = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _live(plant, theirs)
        theirs.close()
        kind, *content = self._received() or ("gone",)
        if kind != "ready":
            os.waitpid(self._pid, 0)
            if kind != "refused":
                raise Unavailable("gates: their process ended at once; see the log")
            again, text = content
            raise (Unavailable if again else InputError)(text)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_TELL_EVERY_S))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_HANGS_AFTER_S))

    def came(self, verdict: Verdict, *, recovered: bool = False) -> None:
        """Pass a verdict on, the moment it was heard."""
        self._send("judged", *Judged.of(verdict, time.monotonic(), time.time(), recovered=recovered))

    def start(self, now: Callable[[], LineNow]) -> None:
        """Begin to tell how the line fares, and to hear how the gates do."""
        self._now = now
        threading.Thread(target=self._run, name="gates", daemon=True).start()

    def close(self) -> None:
        """End it, with all outputs at rest."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        give_up_s = time.monotonic() + _HANGS_AFTER_S
        while not self._has_ended():
            if time.monotonic() > give_up_s:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.01)

    def _has_ended(self) -> bool:
        try:
            return os.waitpid(self._pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            return True

    def _run(self) -> None:
        heard_s = time.monotonic()
        while self.ended is None and not self._stopping:
            self._send("line", _trouble(self._now()))
            try:
                packet = self._received()
            except BlockingIOError:
                packet = []
            if packet is None:
                self._end("the process of the gates has ended")
            elif packet:
                heard_s = time.monotonic()
                self._take(*packet)
            elif time.monotonic() - heard_s > _HANGS_AFTER_S:
                self._end("the process of the gates hangs")

    def _take(self, kind: str, *content: Any) -> None:
        if kind == "recover":
            threading.Thread(target=self._recover, args=content, name="recovery", daemon=True).start()
            return
        gates, margins, timings = content
        self.gates = {
            name: GateNow(**fields | {"counts": GateCounts(**fields["counts"])})
            for name, fields in gates.items()
        }
        for name, margin_s in margins:
            self.on_margin(name, margin_s)
        for name, late_s in timings:
            self.on_timing(name, late_s)

    def _recover(self, captured_at: float) -> None:
        """Ask the journal for the parts that were on their way when this process began."""
        assert self._line.control is not None
        give_up_s = time.monotonic() + _LONGEST_RECOVERY_S
        moment = datetime.fromtimestamp(captured_at, UTC)
        while self.ended is None and time.monotonic() < give_up_s:
            with (
                contextlib.suppress(ControlSilent, ControlRefused, MalformedMessage),
                LineControl(self._line.control, curve=self._line.curve) as control,
            ):
                for verdict in control.replay_since(moment):
                    self.came(verdict, recovered=True)
                self._send("recovered", True)
                return
            time.sleep(0.5)
        self._send("recovered", False)

    def _send(self, *packet: object) -> None:
        try:
            self._socket.send(json.dumps(packet).encode())
        except BlockingIOError:
            self._end("the process of the gates hangs")
        except OSError:
            self._end("the process of the gates has ended")

    def _received(self) -> Any:
        """Take one packet; None when the process has ended."""
        try:
            content = self._socket.recv(_LARGEST_REPORT)
        except ConnectionError:
            return None
        return json.loads(content) if content else None

    def _end(self, why: str) -> None:
        if self._stopping or self.ended is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # the kernel lets its outputs rest
        for gate in self.gates.values():
            gate.trouble, gate.since = why, _stamp()
        self.ended = why


def _trouble(line: LineNow) -> str | None:
    """Say why nothing of a line is to be let through; None while it may."""
    if line.silent:
        return "the line is silent"
    return "the line has given up" if line.state == "failed" else None


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


# From here on: what runs in the process of the gates.


def _live(plant: Plant, channel: socket.socket) -> NoReturn:
    """Open what there is to open, and turn until the other process ends."""
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
