"""The gates' own process, as seen from the rest of ``inspectd-plant``.

It is forked before there are threads, and hears the line itself: nothing here can hold it up. In packets of
JSON it tells how the gates fare, and which verdicts it needs from the journal; these go there. When either
process ends the other does, too: then every output rests.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from foundation.errors import InputError, Unavailable
from plant.config import Plant
from plant.gate.gates import GateCounts, GateNow, Judged
from plant.gate.turning import live
from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage, Verdict

_HANGS_AFTER_S: Final = 5.0
_LARGEST_REPORT: Final = 1 << 18
_LONGEST_RECOVERY_S: Final = 60.0


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
        self._wanted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopping = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            live(plant, theirs)
        theirs.close()
        kind, *content = self._received() or ("gone",)
        if kind != "ready":
            os.waitpid(self._pid, 0)
            if kind != "refused":
                raise Unavailable("gates: their process ended at once; see the log")
            again, text = content
            raise (Unavailable if again else InputError)(text)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_HANGS_AFTER_S))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_HANGS_AFTER_S))

    def start(self) -> None:
        """Begin to hear how the gates fare, and to ask the journal for what they want."""
        threading.Thread(target=self._run, name="gates", daemon=True).start()
        if self._line.control is not None:
            threading.Thread(target=self._ask_for_what_is_wanted, name="recovery", daemon=True).start()

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
        while self.ended is None and not self._stopping:
            try:
                packet = self._received()
            except BlockingIOError:
                self._end("the process of the gates hangs")
                return
            if packet is None:
                self._end("the process of the gates has ended")
            else:
                self._take(*packet)

    def _take(self, kind: str, *content: Any) -> None:
        match kind:
            case "recover":
                self._wanted.put(partial(self._recover, *content))
            case "missed":
                self._wanted.put(partial(self._fill, *content))
            case _:
                gates, margins, timings = content
                self.gates = {
                    name: GateNow(**fields | {"counts": GateCounts(**fields["counts"])})
                    for name, fields in gates.items()
                }
                for name, margin_s in margins:
                    self.on_margin(name, margin_s)
                for name, late_s in timings:
                    self.on_timing(name, late_s)

    def _ask_for_what_is_wanted(self) -> None:
        while self.ended is None and not self._stopping:
            self._wanted.get()()

    def _recover(self, captured_at: float) -> None:
        """Ask the journal for the parts that were on their way when this process began."""
        moment = datetime.fromtimestamp(captured_at, UTC)
        complete = self._ask(lambda control: control.replay_since(moment), recovered=True)
        self._send("recovered", complete)

    def _fill(self, boot: str, first: int, last: int) -> None:
        """Ask the journal for verdicts that the gates did not hear."""
        self._ask(lambda control: control.replay(boot, first, last), recovered=False)

    def _ask(self, replay: Callable[[LineControl], Iterable[Verdict]], *, recovered: bool) -> bool:
        """Pass on what the journal has; False when it could not be asked for long."""
        assert self._line.control is not None
        give_up_s = time.monotonic() + _LONGEST_RECOVERY_S
        while self.ended is None and time.monotonic() < give_up_s:
            with (
                contextlib.suppress(ControlSilent, ControlRefused, MalformedMessage),
                LineControl(self._line.control, curve=self._line.curve) as control,
            ):
                for verdict in replay(control):
                    known = time.monotonic(), time.time()
                    self._send("judged", *Judged.of(verdict, *known, recovered=recovered))
                return True
            time.sleep(0.5)
        return False

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


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
