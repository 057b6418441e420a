"""The health of a line, as a pure function of its state."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from daemon.journal.stamps import iso
from daemon.judging.product import Product
from daemon.running import Running
from verdicts.health import (
    CameraHealth,
    DriftHealth,
    GoldenHealth,
    Health,
    JournalHealth,
    LineState,
    SubscriberHealth,
)
from verdicts.statistics import CameraStatistics
from verdicts.verdict import Decision


def health_of(
    *,
    line: str,
    boot: str,
    phase: LineState,
    given_up: str | None,
    cameras: Mapping[str, CameraHealth],
    product: Product,
    lanes_failing: bool,
    servers: str | None,
    golden: GoldenHealth | None,
    drift: Mapping[str, DriftHealth] | None,
    journal: JournalHealth | None,
    decisions: Mapping[Decision, int],
    dropped_messages: int,
    subscribers: Mapping[str, SubscriberHealth],
    required_subscribers: Collection[str],
    seq: int,
    waiting: int,
    uptime_s: float,
    now: datetime,
) -> Health:
    """Make a health message; this changes nothing.

    Args:
        line: its name.
        boot: hexadecimal digits that name this start of the daemon.
        phase: of its life. While it is "running", the state in the message says whether all is in order.
        given_up: why it ends in failure; None if it does not.
        cameras: by name.
        product: what is judged now.
        lanes_failing: whether the last batch of a lane failed.
        servers: what is wrong with those that judge for the lanes; None where nothing is.
        golden: what golden samples say; None where the config asks for none.
        drift: camera to what has changed there; None where nobody looks.
        journal: how it fares; None without one.
        decisions: published since the start.
        dropped_messages: what came in on the sockets and was no request, since the start.
        subscribers: those that acknowledge, by name.
        required_subscribers: names of those without which not all is in order.
        seq: of the last verdict.
        waiting: captured frames without a verdict.
        uptime_s: since the start.
        now: in UTC.
    """
    in_order = (
        _cameras_in_order(cameras)
        and _journal_in_order(journal)
        and not lanes_failing
        and servers is None
        and _golden_in_order(golden)
        and not any(entry.cause for entry in (drift or {}).values())
        and all(subscribers[name].present for name in required_subscribers)
    )
    return Health(
        line=line,
        boot=boot,
        seq=seq,
        state="degraded" if phase == "running" and not in_order else phase,
        error=given_up or servers,
        cameras=cameras,
        product=product.name,
        engine=product.engine_name,
        journal=journal,
        subscribers=subscribers,
        dropped_messages=dropped_messages,
        verdicts={"pass": 0, "reject": 0, "fault": 0, **decisions},
        waiting=waiting,
        uptime_s=round(uptime_s, 3),
        sent_at=iso(now),
        golden=golden,
        drift=drift,
    )


def health_now(
    on: Running, *, phase: LineState, given_up: str | None, golden: GoldenHealth | None, uptime_s: float
) -> Health:
    """Make the health message of a running line; this changes nothing.

    Args:
        on: what the line runs on.
        phase: as ``health_of``.
        given_up: as ``health_of``.
        golden: as ``health_of``.
        uptime_s: as ``health_of``.
    """
    publisher, control, drift = on.publisher, on.control, on.verdicts.drift
    product, cameras = on.intake.product, dict(on.intake.cameras.items())
    return health_of(
        line=on.line,
        boot=on.boot,
        phase=phase,
        given_up=given_up,
        cameras={
            name: CameraHealth(camera.state, camera.captured, publisher.faults[name], camera.error)
            for name, camera in cameras.items()
        },
        product=product,
        lanes_failing=on.lanes.failing,
        servers=on.lanes.trouble,
        golden=golden,
        drift=None if drift is None else drift.health(product.name, list(cameras)),
        journal=publisher.journal_health(),
        decisions=publisher.decisions,
        dropped_messages=publisher.dropped_messages,
        subscribers={} if control is None else control.subscribers,
        required_subscribers=on.setup.config.required_subscribers,
        seq=on.verdicts.seq,
        waiting=len(on.ledger),
        uptime_s=uptime_s,
        now=datetime.now(UTC),
    )


def statistics_of_cameras(on: Running) -> dict[str, CameraStatistics]:
    """Tell what cameras that choose among their pictures have seen so far, by name."""
    return {
        name: CameraStatistics(
            pictures=watch.pictures,
            empty=watch.empty,
            parts=watch.parts,
            missed=watch.missed,
            triggers=watch.triggers,
            double_triggers=watch.doubles,
            speed_px_per_s=watch.speed,
        )
        for name, camera in on.intake.cameras.items()
        if (watch := camera.watch) is not None
    }


def _cameras_in_order(cameras: Mapping[str, CameraHealth]) -> bool:
    return all(camera.state in {"running", "ended"} and not camera.error for camera in cameras.values())


def _golden_in_order(golden: GoldenHealth | None) -> bool:
    return golden is None or golden.state in {"untested", "passed"}


def _journal_in_order(journal: JournalHealth | None) -> bool:
    return journal is None or journal.error is None
