"""``inspectd-fleet forward``: a forwarder for each line, and one hub for all."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from fleet.config import Fleet, Line
from fleet.forwarding import Forwarder
from fleet.hubs import Hub
from fleet.hubs.open import open_hub, try_hub
from fleet.service import service
from fleet.status import StatusFile
from lines.relay import Subscribe
from verdicts import AcknowledgedSubscription, Lost, acknowledged

COMMAND: Final = "forward"
_TICK_S: Final = 1.0
_LONGEST_END_S: Final = 5.0


def check(fleet: Fleet) -> int:
    """Check config, keys and packages, and that the hub is there and keeps what it takes; give the exit code.

    Raises:
        InputError: something is wrong; ``Unavailable`` while the hub cannot be reached.
    """
    hub = _needed(fleet)
    try_hub(fleet, hub)
    lines = ", ".join(line.name for line in fleet.lines)
    print(f"{fleet.file}: in order: plant {fleet.plant}, lines {lines}, hub {hub.name}")
    return 0


def forward(fleet: Fleet) -> int:
    """Forward until SIGTERM or Ctrl-C; give the exit code.

    Raises:
        InputError: a file is of no use, a package is missing.
    """
    hub = _needed(fleet)
    forwarders = [
        Forwarder(fleet.plant, line.name, fleet.config.name, hub, _subscribe(line, fleet.config.name))
        for line in fleet.lines
    ]
    with service(StatusFile(fleet.state, COMMAND)) as running:
        for forwarder in forwarders:
            forwarder.start()
        running.ready(f"{fleet.plant}: forwards {', '.join(line.name for line in fleet.lines)} to {hub.name}")
        while not running.ending.wait(_TICK_S):
            running.tell(_content(fleet, hub, forwarders), _summary(forwarders))
            if not all(forwarder.is_alive() for forwarder in forwarders):
                raise RuntimeError("a forwarder has ended")  # systemd starts all of it again
        for forwarder in forwarders:
            forwarder.stop()
        for forwarder in forwarders:
            forwarder.join(_LONGEST_END_S)
        running.tell(_content(fleet, hub, forwarders) | {"state": "stopped"}, "stopped")
        hub.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that wait for a line or a hub do not end by themselves


def _needed(fleet: Fleet) -> Hub:
    if not fleet.lines:
        raise fleet.missing("lines", "the lines whose verdicts are forwarded")
    _ = fleet.plant
    return open_hub(fleet)


def _subscribe(line: Line, name: str) -> Subscribe:
    def subscribe(lost: Callable[[Lost], None]) -> AcknowledgedSubscription:
        return acknowledged(
            line.control, line=line.name, name=name, automatic=False, on_lost=lost, curve=line.curve
        )

    return subscribe


def _content(fleet: Fleet, hub: Hub, forwarders: list[Forwarder]) -> dict[str, Any]:
    healths = {forwarder.name: forwarder.health for forwarder in forwarders}
    fine = all(health.state == "forwarding" for health in healths.values())
    return {
        "state": "running" if fine else "degraded",
        "error": next((health.error for health in healths.values() if health.error), None),
        "plant": fleet.plant,
        "hub": hub.name,
        "lines": {name: health.content() for name, health in healths.items()},
    }


def _summary(forwarders: list[Forwarder]) -> str:
    states = Counter(forwarder.health.state for forwarder in forwarders)
    return ", ".join(f"{count} {state}" for state, count in states.most_common())
