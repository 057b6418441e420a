"""All gates of a belt: where the belt is, and what each gate does when its part is there."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

from plant.gate.config import GateConfig
from plant.gate.counters import BeltFailed
from plant.gate.digital import DigitalOutput
from plant.gate.parts import Part, Parts
from plant.gate.position import Position
from plant.gate.track import Track
from plant.section import seconds
from verdicts import Verdict

_log = logging.getLogger(__name__)
_LONGEST_SLEEP_S: Final = 0.004
_SHORTEST_SLEEP_S: Final = 0.0002
_SPEED_OVER_S: Final = 0.008
_LOOK_AROUND_S: Final = 0.05
_AFTER_CLOCK_STEP_S: Final = 1.0
_MOST_EARLY_S: Final = 0.005
_ALIKE_BEFORE_IT_STANDS: Final = 3
_MOST_AT_ONCE: Final = 50


_LONGEST_RECOVERY_S: Final = 7 * 86_400


class Judged(NamedTuple):
    """What a gate has to know of a verdict.

    Attributes:
        camera: of the part.
        boot: start of the daemon, which with seq names the verdict.
        seq: likewise.
        decision: pass, reject or fault.
        captured_at: seconds since 1970, by the line's clock.
        total_s: from the capture to the verdict.
        heard_s: when it was heard, by ``time.monotonic()``.
        heard_at: likewise in seconds since 1970.
        recovered: whether it comes from the journal, so that its part may have left long ago.
    """

    camera: str
    boot: str
    seq: int
    decision: str
    captured_at: float
    total_s: float
    heard_s: float
    heard_at: float
    recovered: bool = False

    @classmethod
    def of(cls, verdict: Verdict, heard_s: float, heard_at: float, *, recovered: bool = False) -> Self:
        """Take from a verdict what is needed."""
        captured_at = datetime.fromisoformat(verdict.captured_at).timestamp()
        return cls(
            verdict.camera, verdict.boot, verdict.seq, verdict.decision, captured_at,
            verdict.latency_ms.total / 1000, heard_s, heard_at, recovered,
        )  # fmt: skip


@dataclass
class GateCounts:
    """What a gate did since the start."""

    passed: int = 0
    ejected: int = 0
    late: int = 0
    unknown: int = 0
    slipped: int = 0


@dataclass
class GateNow:
    """How a gate fares, for those who only look.

    Attributes:
        trouble: why everything is thrown out; None while it is not.
        since: when that came to be so: ISO 8601, UTC.
        stuck: why the output does not move; None while it does.
        on_their_way: judged parts that have not reached it.
        counts: what became of the others.
    """

    trouble: str | None
    since: str
    stuck: str | None
    on_their_way: int
    counts: GateCounts

    def content(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "state": "trusted" if self.trouble is None else "ejecting",
            "since": self.since,
            "error": self.trouble or self.stuck,
            "on_their_way": self.on_their_way,
            **asdict(self.counts),
        }


@dataclass
class Gate:
    """One gate, and what is on its way there.

    Attributes:
        name: from the config.
        config: likewise.
        way: from the camera, in the belt's unit.
        output: what moves it.
        parts: what was judged and is on its way.
        counts: what became of the parts.
        trouble: why everything is thrown out; None while it is not.
        since: when that came to be so.
        active: whether the output is active.
    """

    name: str
    config: GateConfig
    way: float
    output: DigitalOutput
    parts: Parts
    counts: GateCounts = field(default_factory=GateCounts)
    trouble: str | None = "not begun"
    since: str = ""
    active: bool = False
    active_s: float = 0.0
    last_target: float = float("-inf")
    alike: int = 0
    distrust_until: float = float("-inf")

    def now(self) -> GateNow:
        """Tell how it fares."""
        return GateNow(self.trouble, self.since, self.output.trouble, self.parts.waiting(), self.counts)


class Gates:
    """All gates of a line, which share its belt.

    Attributes:
        gates: by name.
        on_margin: told of each part's gate, and how many seconds before its place reached the gate its
            verdict was known; negative when it came too late.
        on_timing: told of each change's gate, and how many seconds after the right moment it was done.
    """

    def __init__(
        self,
        gates: Mapping[str, Gate],
        position: Position,
        track: Track,
        line_trouble: Callable[[], str | None],
        *,
        recovers: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Begin. Everything is thrown out until the line was heard.

        Args:
            gates: by name.
            position: of the belt.
            track: which also remembers the clock.
            line_trouble: tells why the line's verdicts are not to be trusted now; None while they are.
            recovers: whether parts that were on their way before this process began are found again.
            clock: in seconds, never set.
            wall: the calendar's, in seconds since 1970.
        """
        self._clock = clock
        self._wall = wall
        self.gates = dict(gates)
        self.on_margin: Callable[[str, float], object] = lambda *_: None
        self.on_timing: Callable[[str, float], object] = lambda *_: None
        self._recovers = recovers
        self._position = position
        self._track = track
        self._line_trouble = line_trouble
        self._came: deque[Judged] = deque()
        self._clock_stepped_s = float("-inf")
        self._belt_trouble: str | None = None
        self._looked_s = float("-inf")
        self._before: tuple[float, float] | None = None
        self._speed = 0.0
        self._measured: tuple[float, float] | None = None

    def came(self, judged: Judged) -> None:
        """Take a verdict; it counts from the next turn on."""
        self._came.append(judged)

    def close(self) -> None:
        """Let all outputs rest, and let go of them and of the encoder."""
        for gate in self.gates.values():
            gate.output.close()
        self._position.close()

    def fail(self) -> None:
        """Throw everything out after an error of this program."""
        for gate in self.gates.values():
            self._trouble(gate, "an error of this program; see its log")
            self._move(gate, gate.config.fires == "eject", None)

    def distrust_what_is_on_its_way(self) -> None:
        """Let nothing pass by mistake that nobody can tell of: for a gate that is active to throw out."""
        if self._before is not None:
            for gate in self.gates.values():
                gate.distrust_until = self._before[1] + gate.way + gate.parts.half

    def oldest_on_its_way(self) -> float | None:
        """Give the wall clock's time before which nothing was captured that is still on its way.

        None where nothing is, or as long as the belt's position is not known.
        """
        if self._before is None:
            return None
        furthest = max(gate.way + 4 * gate.parts.half + gate.parts.keep for gate in self.gates.values())
        since_s = self._position.since(self._before[1] - furthest)
        if since_s is None:
            return None
        return self._wall() - min(self._clock() - since_s, _LONGEST_RECOVERY_S) - 0.1

    @property
    def has_looked(self) -> bool:
        """Whether the belt's position is known."""
        return self._before is not None

    def turn(self) -> float:
        """Do what is due now; give how long nothing is."""
        now_s = self._clock()
        position = self._look(now_s)
        if now_s - self._looked_s >= _LOOK_AROUND_S:
            self._look_around(now_s, position)
        for _ in range(min(len(self._came), _MOST_AT_ONCE)):
            self._take(self._came.popleft(), position)
        if position is None:
            for gate in self.gates.values():
                self._move(gate, gate.config.fires == "eject", None)
            return _LOOK_AROUND_S
        self._measure_speed(now_s, position)
        wait_s = _LOOK_AROUND_S if self._is_steady else _LONGEST_SLEEP_S
        if self._came:
            wait_s = 0.0
        for gate in self.gates.values():
            self._serve(gate, now_s, position)
            wait_s = min(wait_s, self._until_next_edge(gate, now_s, position))
        self._before = (now_s, position)
        return wait_s

    @property
    def _is_steady(self) -> bool:
        return hasattr(self._position, "speed")

    def _look(self, now_s: float) -> float | None:
        """Read the belt's position; None when it is not known."""
        try:
            position = self._position.now(now_s)
        except BeltFailed as error:
            if self._belt_trouble is None:
                _log.warning("the belt: %s; everything is thrown out", error)
            self._belt_trouble = f"the belt: {error}"
            self._before = self._measured = None
            for gate in self.gates.values():
                gate.parts.clear()  # where they lie is not known any more
                gate.distrust_until = float("inf")
            return None
        if self._belt_trouble is not None:
            _log.info("the belt: its position is known again")
        begins = self._before is None and self._belt_trouble is None
        if self._belt_trouble is not None or (begins and self._cannot_recover()):
            for gate in self.gates.values():
                gate.distrust_until = position + gate.way + gate.parts.half
        self._belt_trouble = None
        return position

    def _cannot_recover(self) -> bool:
        """Tell whether nobody can say what is on its way when this process begins."""
        return not self._recovers or self._position.known_from() > float("-inf")

    def _look_around(self, now_s: float, position: float | None) -> None:
        """Look at the clock and the line; a few times a second."""
        self._looked_s = now_s
        if not self._track.note_clock(now_s, self._wall() - self._clock()):
            _log.warning("the clock was stepped: parts that were judged just now are thrown out")
            self._clock_stepped_s = now_s
        line_trouble = self._line_trouble()
        for gate in self.gates.values():
            if self._belt_trouble is not None:
                self._trouble(gate, self._belt_trouble)
            elif line_trouble is not None:
                self._trouble(gate, line_trouble)
            elif gate.alike >= _ALIKE_BEFORE_IT_STANDS and self._stands(gate, position):
                self._trouble(gate, "the belt stands still while parts come")
            else:
                self._trouble(gate, None)
            if position is not None:
                gate.parts.forget(position)

    def _stands(self, gate: Gate, position: float | None) -> bool:
        return position is None or abs(position + gate.way - gate.last_target) <= 2 * gate.parts.half

    def _trouble(self, gate: Gate, trouble: str | None) -> None:
        if trouble != gate.trouble:
            gate.since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            if trouble is not None:
                _log.warning("gate %s: %s; everything is thrown out", gate.name, trouble)
            else:
                _log.info("gate %s: parts that pass are let through", gate.name)
        gate.trouble = trouble

    def _take(self, judged: Judged, position: float | None) -> None:
        """Find out where a part is that was judged, and remember it."""
        for gate in self.gates.values():
            if gate.config.camera != judged.camera:
                continue
            at = self._captured(judged)
            if at is None or position is None:
                gate.counts.unknown += not judged.recovered
                if position is not None:
                    gate.distrust_until = max(gate.distrust_until, position + gate.way + gate.parts.half)
                continue
            target = at + gate.way
            passes = judged.decision == "pass"
            key = (judged.boot, judged.seq)
            if judged.recovered and position >= target - gate.parts.half:
                passes = passes and self._was_in_time(judged, target - gate.parts.half)
                gate.parts.add_behind(target, key, passes=passes, known_s=judged.heard_s)
                continue
            gate.alike = gate.alike + 1 if abs(target - gate.last_target) <= gate.parts.half else 0
            gate.last_target = target
            part = gate.parts.add(target, key, passes=passes, known_s=judged.heard_s, position=position)
            if part is not None and part.late:
                self._came_late(gate, part, judged, position)

    def _came_late(self, gate: Gate, part: Part, judged: Judged, position: float) -> None:
        gate.counts.late += 1
        gate.counts.ejected += 1
        self.on_margin(gate.name, -1.0)
        if gate.config.fires == "eject" and judged.decision != "pass":
            if position > part.target - gate.parts.half:
                gate.counts.slipped += 1
            _log.warning(
                "gate %s: %s %d of boot %s came too late", gate.name, judged.decision, judged.seq, judged.boot
            )

    def _captured(self, judged: Judged) -> float | None:
        """Give the belt's position when the part was captured; None where it cannot be known."""
        age_s = judged.heard_at - judged.captured_at
        # A verdict that was given before its part was captured tells of a clock that was set back.
        if age_s < judged.total_s - _MOST_EARLY_S:
            return None
        if judged.heard_s - self._clock_stepped_s < _AFTER_CLOCK_STEP_S:
            return None
        return self._position.at(judged.heard_s - age_s)

    def _was_in_time(self, judged: Judged, edge: float) -> bool:
        """Tell whether a verdict from the journal was given before its part's place had reached the gate."""
        age_s = judged.heard_at - judged.captured_at
        given = self._position.at(judged.heard_s - age_s + judged.total_s)
        return given is not None and given < edge

    def _serve(self, gate: Gate, now_s: float, position: float) -> None:
        """Move a gate as the parts want it that are there now, and count those that came."""
        for part in gate.parts.reached(position):
            trusted = gate.trouble is None
            passes = part.passes and trusted
            gate.counts.passed += passes
            gate.counts.ejected += not passes
            edge_s = self._crossed(part.target - gate.parts.half, now_s, position)
            self.on_margin(gate.name, edge_s - part.known_s)
        throws_out = gate.parts.throws_out(position)
        if gate.config.fires == "pass":
            wanted = gate.trouble is None and not throws_out and gate.parts.lets_through(position)
            held = not throws_out and gate.trouble is None
        else:
            wanted = gate.trouble is not None or throws_out or position < gate.distrust_until
            held = True
        if gate.active and not wanted and held and gate.config.pulse is not None:
            wanted = now_s - gate.active_s < seconds(gate.config.pulse)
        self._move(gate, wanted, position)

    def _move(self, gate: Gate, active: bool, position: float | None) -> None:
        if active == gate.active:
            return
        gate.output.set(active)
        done_s = self._clock()
        gate.active, gate.active_s = active, done_s
        if position is not None and self._before is not None:
            edge = self._last_edge(gate, position)
            if edge is not None:
                self.on_timing(gate.name, done_s - self._crossed(edge, done_s, position))

    def _last_edge(self, gate: Gate, position: float) -> float | None:
        """Give the edge of a part's place that was crossed since the last look."""
        assert self._before is not None
        before = self._before[1]
        edge = gate.parts.next_edge(before, forwards=position >= before)
        inside = edge is not None and min(before, position) <= edge <= max(before, position)
        return edge if inside else None

    def _crossed(self, edge: float, now_s: float, position: float) -> float:
        """Reckon when the belt crossed an edge since the last look."""
        if isinstance(speed := getattr(self._position, "speed", None), float):
            return edge / speed
        if self._before is None or position == self._before[1]:
            return now_s
        before_s, before = self._before
        share = (edge - before) / (position - before)
        return before_s + min(1.0, max(0.0, share)) * (now_s - before_s)

    def _measure_speed(self, now_s: float, position: float) -> None:
        """Measure the speed over a while: from one look to the next an encoder may count nothing."""
        if isinstance(speed := getattr(self._position, "speed", None), float):
            self._speed = speed
        elif self._measured is None:
            self._measured = (now_s, position)
        elif now_s - self._measured[0] >= _SPEED_OVER_S:
            self._speed = (position - self._measured[1]) / (now_s - self._measured[0])
            self._measured = (now_s, position)

    def _until_next_edge(self, gate: Gate, now_s: float, position: float) -> float:
        """Reckon how long it takes until the gate has to move next."""
        wait_s = float("inf")
        if gate.active and gate.config.pulse is not None:
            wait_s = max(_SHORTEST_SLEEP_S, gate.active_s + seconds(gate.config.pulse) - now_s)
        if self._speed == 0:
            return wait_s
        edge = gate.parts.next_edge(position, forwards=self._speed > 0)
        if edge is None:
            return wait_s
        left_s = (edge - position) / self._speed
        # A belt that is counted may grow faster meanwhile, so it is looked at again halfway.
        return min(wait_s, max(_SHORTEST_SLEEP_S, left_s if self._is_steady else left_s / 2))
