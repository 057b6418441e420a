"""What is wrong: each cause once, and not what only follows from another."""

from collections.abc import Iterator, Mapping

from plant.gate.gates import GateNow
from plant.link import LinkHealth
from plant.outputs import LineNow


def causes(
    line: LineNow, links: Mapping[str, LinkHealth], gates: Mapping[str, GateNow]
) -> Iterator[tuple[str, str]]:
    """Give each cause's name, which stays the same while it lasts, and one line about it."""
    name, health = line.name, line.health
    if line.silent or health is None:
        stopped = health is not None and health.state == "stopping"
        yield "line", f"{name} was shut down" if stopped else f"{name} is silent: it gives no sign of life"
    elif health.state == "failed":
        yield "line", f"{name} has given up: {health.error or 'see its log'}"
    else:
        found = False
        for camera, state in health.cameras.items():
            if state.state not in ("running", "opening"):
                found = True
                yield f"camera {camera}", f"camera {camera} is {state.state}" + _detail(state.error)
        if health.journal is not None and health.journal.state != "ok":
            found = True
            yield "journal", "verdicts cannot be journaled" + _detail(health.journal.error)
        if health.state == "degraded" and not found:
            yield "line degraded", f"{name} is degraded" + _detail(health.error)
    for output, link in links.items():
        # What the line does not deliver is the line's trouble.
        if link.state == "down" and not (line.silent and (link.error or "").startswith("the line")):
            yield f"output {output}", f"{output} is not connected" + _detail(link.error)
    for gate_name, gate in gates.items():
        if gate.trouble is not None and not gate.trouble.startswith("the line"):
            yield f"gate {gate_name}", f"gate {gate_name} throws everything out: {gate.trouble}"
        elif gate.stuck is not None:
            yield f"gate {gate_name}", f"gate {gate_name} cannot be moved: {gate.stuck}"


def _detail(text: str | None) -> str:
    return f": {' '.join(text.split())}" if text else ""
