"""From the start of the plant's side of a line to its end."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from foundation.errors import InputError, Unavailable, located, refused_by_system
from foundation.sd_notify import Service
from plant.alarms.alarms import Alarms, Message
from plant.alarms.causes import causes
from plant.alarms.channels import Channel, open_ways
from plant.config import Place, Plant
from plant.gate.gates import GateNow
from plant.gate.open import check_gates
from plant.gate.process import GateProcess
from plant.http_listener import Answer, Listener, as_json
from plant.link import Link
from plant.listening import Listening
from plant.metrics import Metrics
from plant.outputs import LineNow
from plant.outputs.open import open_outputs, require
from plant.section import seconds
from verdicts import acknowledged

_log = logging.getLogger(__name__)
_TICK_S: Final = 0.5
_LONGEST_END_S: Final = 5.0
_TELL_WITHIN_S: Final = 0.05
"""So soon the line hears what was delivered: of several verdicts at once, as each message costs it.

Not of what goes to PLCs one by one: these compare what comes again with their last verdict alone.
"""
_SCHEDULING: Final = "INSPECTD_PLANT_SCHEDULING"
"""Set to idle by the service: whoever starts this by hand on a busy machine would wait for it."""
_LONGEST_HASTE_S: Final = 10.0


def check(plant: Plant) -> int:
    """Check what can be checked without reaching anybody; give the exit code.

    Raises:
        InputError: something is wrong.
    """
    outputs = open_outputs(plant, lambda: LineNow(plant.line.name, None, silent=True))
    if plant.config.metrics is not None:
        require("prometheus_client", "metrics")
    check_gates(plant)
    if plant.config.alarms is not None:
        open_ways(plant.file, plant.config.alarms)
    parts = [
        *outputs,
        *(f"gate {name}" for name in plant.config.gates),
        *(["metrics"] if plant.config.metrics else []),
    ]
    print(f"{plant.file}: in order: line {plant.line.name}, {', '.join(parts) or 'nothing to do'}")
    return 0


def run(plant: Plant) -> int:
    """Run until SIGTERM or Ctrl-C; give the exit code.

    Raises:
        InputError: a file is of no use, an address is taken, a package is missing.
    """
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    with _Running(plant) as running:
        service = Service()
        running.start()
        print(f"{plant.line.name}: {running.summary()}", flush=True)
        service.ready()
        while not end.wait(_TICK_S):
            running.tick()
            service.alive(running.summary())
        service.stopping()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that listen to a line do not end by themselves


class _Running:
    """Everything that the config names, opened."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self._since = datetime.now(UTC)
        self._hastens_until_s: float | None = None
        if os.environ.get(_SCHEDULING) == "idle":
            self._hastens_until_s = time.monotonic() + _LONGEST_HASTE_S
        _make(plant)
        self.gates: GateProcess | None = None
        if plant.config.gates:
            check_gates(plant)
            with located(str(plant.file)):
                self.gates = GateProcess(plant)
        self.listening = Listening(plant.line, seconds(plant.config.silence))
        self.links = {
            name: _link(plant, name, plant.places[name], output, self.listening)
            for name, output in open_outputs(plant, self.listening.now).items()
        }
        self._channels: list[Channel] = []
        self._alarms: Alarms | None = None
        if plant.config.alarms is not None:
            self._channels = [Channel(*way) for way in open_ways(plant.file, plant.config.alarms).items()]
            self._alarms = Alarms(
                plant.line.name,
                plant.state / "alarms.json",
                after_s=seconds(plant.config.alarms.after),
                ok_after_s=seconds(plant.config.alarms.ok_after),
                tell=self._tell,
            )
        self.metrics: Metrics | None = None
        self._listener: Listener | None = None
        if plant.config.metrics is not None:
            self._serve(plant)

    def __enter__(self) -> "_Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.gates is not None:
            self.gates.close()
        for link in self.links.values():
            link.stop()
        for link in self.links.values():
            link.join(_LONGEST_END_S)
        for channel in self._channels:
            channel.close(_LONGEST_END_S)
        if self._listener is not None:
            self._listener.close()

    def start(self) -> None:
        """Begin to listen and to deliver."""
        self.listening.start()
        if self.gates is not None:
            self.gates.start()
        for link in self.links.values():
            link.start()
        for channel in self._channels:
            channel.start()
        if self._listener is not None:
            self._listener.start()

    def tick(self) -> None:
        """Do what is due; called twice a second.

        Raises:
            Unavailable: the process of the gates is gone; whoever starts this one again starts it, too.
        """
        if self.gates is not None and self.gates.ended is not None:
            raise Unavailable(f"{self.plant.file}: gates: {self.gates.ended}")
        if self._hastens_until_s is not None and (
            all(gate.trouble is None for gate in self._gates.values())
            or time.monotonic() > self._hastens_until_s
        ):
            self._hastens_until_s = None  # the gates know from the journal what is on its way
            _come_last()
        if self.metrics is not None:
            self.metrics.tick()
        if self._alarms is not None:
            links = {name: link.health for name, link in self.links.items()}
            self._alarms.look(time.monotonic(), causes(self.listening.now(), links, self._gates))

    def _tell(self, message: Message) -> None:
        _log.info("alarm: %s", message.text)
        for channel in self._channels:
            channel.put(message)

    def health(self) -> dict[str, Any]:
        """Tell how everything fares, as the probes answer it."""
        line = self.listening.now()
        return {
            "line": line.name,
            "state": line.state,
            "since": f"{self._since:%Y-%m-%dT%H:%M:%S.%fZ}",
            "outputs": {name: link.health.content() for name, link in self.links.items()},
            "alarms": {channel.name: channel.trouble for channel in self._channels},
            "gates": {name: gate.content() for name, gate in self._gates.items()},
        }

    def is_ready(self) -> bool:
        """Tell whether the line runs and everybody at the other ends is there."""
        return self.listening.now().state == "running" and all(
            [
                *(link.health.state == "connected" for link in self.links.values()),
                *(gate.trouble is None and gate.stuck is None for gate in self._gates.values()),
            ]
        )

    def summary(self) -> str:
        """Give one line about everything."""
        return ", ".join(
            [f"line {self.listening.now().state}"]
            + [f"{name} {link.health.state}" for name, link in self.links.items()]
            + [f"gate {name} {gate.content()['state']}" for name, gate in self._gates.items()]
        )

    @property
    def _gates(self) -> dict[str, GateNow]:
        return {} if self.gates is None else self.gates.gates

    def _serve(self, plant: Plant) -> None:
        require("prometheus_client", "metrics")
        line = plant.line
        folders = {
            "journal": None if line.journal is None else line.journal.parent,
            "archive": line.archive,
            "state": plant.state,
        }
        self.metrics = metrics = Metrics(
            line.name,
            self.listening,
            lambda: {name: link.health for name, link in self.links.items()},
            {name: folder for name, folder in folders.items() if folder is not None},
            self.gates,
        )

        def scraped() -> Answer:
            kind, text = metrics.text()
            return Answer(200, kind, text)

        assert plant.config.metrics is not None
        with located(str(plant.file)):
            self._listener = Listener(
                plant.config.metrics,
                {
                    "/metrics": scraped,
                    "/healthz": lambda: as_json(self.health(), good=True),
                    "/readyz": lambda: as_json(self.health(), good=self.is_ready()),
                },
            )


def _come_last() -> None:
    """Leave the processor to the line whenever it wants it: what waits here waits in its journal.

    The gates have a process of their own, which comes first.
    """
    try:
        for thread in Path(
            "/proc/self/task"
        ).iterdir():  # threads that begin later are as those they come from
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        _log.info("the outputs run with the line's own priority (%s)", error.strerror)


def _link(plant: Plant, name: str, place: Place, output: Any, listening: Listening) -> Link:
    section = plant.config.outputs()[name]
    assert plant.line.control is not None
    control = plant.line.control

    def subscription(lost: Any) -> Any:
        return acknowledged(
            control,
            line=plant.line.name,
            name=place.subscriber,
            decisions=frozenset(section.decisions),
            automatic=False,
            silence_s=seconds(plant.config.silence),
            on_lost=lost,
            curve=place.curve,
            tell_within_s=_TELL_WITHIN_S if output.most_at_once > 1 else 0.0,
        )

    return Link(name, output, subscription, listening.now)


def _make(plant: Plant) -> None:
    try:
        plant.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused_by_system(
            f"{plant.file}: state: {plant.state} cannot be made: {error.strerror}", error
        ) from error
    if not os.access(plant.state, os.W_OK | os.X_OK):
        raise InputError(
            f"{plant.file}: state: {plant.state} cannot be written; expected a folder of its own"
        )
