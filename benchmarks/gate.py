"""Whether every part meets its own gate command, and how exactly: a belt that varies, stops and reverses.

    python benchmarks/gate.py                                 # 100,000 parts, as fast as it can
    python benchmarks/gate.py --parts 0 --real 120            # a real line, so many seconds
    python benchmarks/gate.py --parts 0 --real 120 --busy 2   # beside processes that only compute

The first part runs the gates' own code against a simulated belt, encoder and clock; it wakes late now and
then, as a machine does. What the gate should do is worked out apart from it, from the true motion: whenever
a part's middle is at the gate, its output has to be what the verdict says. The second part runs processes,
kills inspectd-plant with SIGKILL every 15 seconds, and reads what the output did from its file; its times are
those of this machine.
"""

import argparse
import bisect
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # first: here is a dashboard.py, too

from plant.gate.config import GateConfig, SimulatedBelt
from plant.gate.counters import SimulatedCounter
from plant.gate.gates import Gate, Gates, Judged
from plant.gate.parts import Parts
from plant.gate.position import CountedPosition
from plant.gate.track import Track
from verdicts import Latency, Verdict

WAY, WINDOW = 4200.0, 40.0
WALL = 1_800_000_000.0
LOOK_S = 0.007
"""The longest way from one look at the belt to the next, with what the simulated machine adds."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=int, default=100_000, help="simulated (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kill-every", type=float, default=300, metavar="SECONDS", help="of the simulated time"
    )
    parser.add_argument("--real", type=float, default=0, metavar="SECONDS", help="run processes, too")
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="processes beside it (default: %(default)s)"
    )
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.parts:
        result["simulated"] = simulated(options.parts, options.seed, options.kill_every)
    if options.real:
        with busy(options.busy):
            result["real"] = real(options.real)
    print(json.dumps(result, indent=2))


def profile(chance: random.Random, laps: int) -> list[tuple[float, float]]:
    """Draw a motion: speeds of 300 to 1,500 pulses per second with ramps between, stops, short ways back."""
    motion: list[tuple[float, float]] = []
    speed = 1000.0
    for _ in range(laps):
        wanted = chance.uniform(300, 1500)
        motion += [(0.05, speed + (wanted - speed) * step / 8) for step in range(1, 9)]
        motion.append((chance.uniform(1, 6), wanted))
        speed = wanted
        if chance.random() < 0.3:
            motion += [(0.05, speed * (1 - step / 4)) for step in range(1, 4)]
            motion.append((chance.uniform(0.1, 3), 0.0))
            if chance.random() < 0.5:
                motion.append((chance.uniform(0.05, 0.4), -chance.uniform(50, 400)))
                motion.append((chance.uniform(0.1, 0.5), 0.0))
            motion += [(0.05, speed * step / 4) for step in range(1, 4)]
    return motion


class Motion:
    """The true motion of the belt, and when it was where."""

    def __init__(self, segments: list[tuple[float, float]]) -> None:
        self._times, self._positions, self._speeds = [0.0], [0.0], [speed for _, speed in segments]
        for seconds, speed in segments:
            self._times.append(self._times[-1] + seconds)
            self._positions.append(self._positions[-1] + seconds * speed)

    def at(self, moment_s: float) -> float:
        index = min(max(bisect.bisect_right(self._times, moment_s) - 1, 0), len(self._speeds) - 1)
        return self._positions[index] + self._speeds[index] * (moment_s - self._times[index])

    def crossings(self, target: float, begin_s: float, end_s: float) -> Iterator[float]:
        """Give every moment in a span at which the belt was at a position while it moved."""
        first = max(bisect.bisect_right(self._times, begin_s) - 1, 0)
        for index in range(first, len(self._speeds)):
            if self._times[index] > end_s:
                return
            a, b, speed = self._positions[index], self._positions[index + 1], self._speeds[index]
            if speed and min(a, b) <= target < max(a, b):
                moment_s = self._times[index] + (target - a) / speed
                if begin_s <= moment_s <= end_s:
                    yield moment_s

    def speed(self, moment_s: float) -> float:
        """Give how fast the belt was around a moment."""
        return (self.at(moment_s + 0.001) - self.at(moment_s - 0.001)) / 0.002

    @property
    def length_s(self) -> float:
        return self._times[-1]


class Switched(NamedTuple):
    """When an output changed, and to what."""

    times: list[float]
    states: list[bool]

    def at(self, moment_s: float) -> bool:
        index = bisect.bisect_right(self.times, moment_s) - 1
        return index >= 0 and self.states[index]

    def nearest(self, moment_s: float, state: bool) -> float:
        """Give when the output changed to a state, nearest to a moment."""
        first = max(bisect.bisect_left(self.times, moment_s) - 4, 0)
        changes = zip(self.times[first : first + 8], self.states[first : first + 8], strict=True)
        return min((at for at, to in changes if to == state), key=lambda at: abs(at - moment_s))


def simulated(count: int, seed: int, kill_every_s: float) -> dict[str, Any]:
    """Send parts along a simulated belt; sometimes all but the track and the journal is lost."""
    chance = random.Random(seed)
    motion = Motion(profile(chance, laps=count // 40 + 10))
    clock = SimpleNamespace(now=0.0)
    switched = Switched([], [])

    class Output:
        trouble: str | None = None

        def set(self, active: bool) -> None:
            switched.times.append(clock.now)
            switched.states.append(active)

        def close(self) -> None: ...

    class Encoder:
        outlives = True

        def read(self) -> float:
            return float(int(motion.at(clock.now)))

        def close(self) -> None: ...

    config = GateConfig.model_validate(
        {"camera": "top", "after_pulses": WAY, "window": WINDOW, "output": {"simulated": Path("x")}}
    )
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        timings: list[float] = []

        def begun() -> tuple[Gates, Gate, CountedPosition]:
            track = Track(Path(folder) / "track", WINDOW / 16)
            position = CountedPosition(Encoder(), track, way=WAY, bits=None, fastest=5000)
            gate = Gate("reject", config, WAY, Output(), Parts(WINDOW / 2, WAY))
            gates = Gates(
                {"reject": gate}, position, track, lambda: None, clock=lambda: clock.now,
                wall=lambda: WALL + clock.now,
            )  # fmt: skip
            gates.on_timing = lambda _, late_s: timings.append(late_s)
            return gates, gate, position

        gates, gate, position = begun()
        away: list[tuple[float, float]] = []
        journal: list[Verdict] = []
        counted = Counter[str]()
        parts = list(_parts(motion, count, chance))
        coming = deque(sorted(parts, key=lambda part: part.known_s))
        turns = 0
        last_s = parts[-1].captured_s
        while clock.now < motion.length_s - 1 and (coming or clock.now < last_s + 30):
            while coming and coming[0].known_s <= clock.now:
                journal.append(coming.popleft().verdict())
                gates.came(Judged.of(journal[-1], clock.now, WALL + clock.now))
            if clock.now - (away[-1][1] if away else 0.0) > kill_every_s:
                counted.update(vars(gate.counts))
                killed_s = clock.now
                gate.output.set(False)  # as the kernel does with the lines of a process that ended
                clock.now += chance.uniform(0.2, 1.5)
                while coming and coming[0].known_s <= clock.now:
                    journal.append(coming.popleft().verdict())
                gates, gate, position = begun()
                gates.turn()
                since_s = position.since(position.now(clock.now) - 2 * WAY - 2 * WINDOW) or 0.0
                for verdict in journal[-2000:]:
                    if datetime.fromisoformat(verdict.captured_at).timestamp() - WALL > since_s - 0.1:
                        gates.came(Judged.of(verdict, clock.now, WALL + clock.now, recovered=True))
                while gates.turn() == 0:
                    pass
                away.append((killed_s, clock.now))
            wait_s = gates.turn()
            turns += 1
            if coming:
                wait_s = min(wait_s, max(0.0, coming[0].known_s - clock.now))
            clock.now += wait_s + chance.expovariate(1 / 0.0002) + (0.002 if chance.random() < 0.001 else 0)
        checked = _checked(parts, motion, switched, clock.now, away)
    return {
        "parts": count,
        **checked,
        "simulated_hours": round(clock.now / 3600, 2),
        "took_s": round(time.monotonic() - began_s, 1),
        "turns": turns,
        "kills": len(away),
        "counted": dict(counted + Counter(vars(gate.counts))),
        "timing_ms": _quantiles(timings),
    }


class Seen(NamedTuple):
    """A part that was captured, and what was said of it when."""

    number: int
    captured_s: float
    known_s: float
    decision: str

    def verdict(self) -> Verdict:
        total_ms = max(0.0, (self.known_s - self.captured_s) * 1000 - 0.3)
        captured_at = datetime.fromtimestamp(WALL + self.captured_s, UTC)
        return Verdict(
            line="line3", camera="top", frame=self.number, part=None, boot="aa", seq=self.number,
            decision=self.decision,  # type: ignore[arg-type]
            reason="deadline" if self.decision == "fault" else None, score=0.5, threshold=0.5, peak=None,
            captured_at=f"{captured_at:%Y-%m-%dT%H:%M:%S.%fZ}", latency_ms=Latency(1.0, 2.0, total_ms),
            model="x", archive=None,
        )  # fmt: skip


def _parts(motion: Motion, count: int, chance: random.Random) -> Iterator[Seen]:
    """Lay parts 50 to 90 pulses apart: each is captured when it first comes under the camera."""
    place, moment_s = 300.0, 0.0
    for number in range(1, count + 1):
        moment_s = next(motion.crossings(place, moment_s, motion.length_s))
        decision = chance.choices(("pass", "reject", "fault"), (0.8, 0.17, 0.03))[0]
        slow = chance.random()
        known_s = moment_s + (chance.uniform(0.02, 0.3) if slow < 0.995 else chance.uniform(1, 8))
        yield Seen(number, moment_s, known_s, decision)
        place += chance.uniform(50, 90)


def _checked(
    parts: list[Seen], motion: Motion, switched: Switched, end_s: float, away: list[tuple[float, float]]
) -> dict[str, int]:
    """Hold what the output did against what each part should have met.

    While the process is away the output rests, and nobody watches the belt: a part that passes and is
    captured or at the gate then may be thrown out. What may not pass may not do so then either.
    """

    def within(moment_s: float) -> bool:
        index = bisect.bisect_right(away, (moment_s + LOOK_S, float("inf"))) - 1
        return index >= 0 and moment_s <= away[index][1] + LOOK_S

    wrong = missed = crossings = too_late = near_a_kill = 0
    for part in parts:
        target = motion.at(part.captured_s) + WAY
        entered_s = next(motion.crossings(target - WINDOW / 2, part.captured_s, end_s), None)
        if entered_s is None:
            continue
        in_time = part.known_s < entered_s
        too_late += not in_time
        for moment_s in motion.crossings(target, entered_s, min(end_s, entered_s + 60)):
            crossings += 1
            expected = part.decision == "pass" and in_time
            if part.decision == "pass" and any(map(within, (part.captured_s, entered_s, moment_s))):
                near_a_kill += 1
            elif switched.at(moment_s) != expected:
                wrong += not expected
                missed += expected
    return {
        "times_at_the_gate": crossings,
        "wrong": wrong,
        "missed": missed,
        "without_verdict_in_time": too_late,
        "passes_near_a_kill": near_a_kill,
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0))
    }


FAST = 600
"""Pulses per second; where the belt is slower, one pulse of the encoder takes longer than that."""
STOOD_S = (0.0, 0.05, 0.1, 0.15)
"""So long ago the belt may have stood: a place of a part is passed in that time, and then looked around."""
PROFILE: list[tuple[float, float]] = [
    *((5.0, 1000.0), (0.2, 600.0), (3.0, 400.0), (0.1, 200.0), (1.0, 0.0), (0.2, -200.0), (0.3, 0.0)),
    *((0.1, 400.0), (4.0, 1300.0), (0.1, 700.0)),
]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Have processes compute meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def real(run_s: float) -> dict[str, Any]:
    """Run a line at 15 parts per second with a gate for so many seconds, and kill the plant now and then."""
    from brightness import THRESHOLD, brightness_model, calibrate
    from dashboard_rig import write_line
    from plant_rig import Plant, free_port, until

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = brightness_model(folder / "brightness.onnx")
        subprocess.run(
            [Path(sys.executable).parent / "build-engine", model, "--runtime", "onnxruntime"],
            check=True,
            capture_output=True,
        )
        calibrate(folder / "brightness.engine", folder / "brightness.calibration.yaml", THRESHOLD)
        write_line(folder, cameras={"top": {"source": "parts", "fps": 15, "loop": True}})
        gate = {"camera": "top", "after_pulses": WAY, "window": 16, "output": {"simulated": "gate.log"}}
        plant = {
            "line": "line3.yaml", "metrics": {"listen": f"http://127.0.0.1:{free_port()}"},
            "belt": {"simulated": {"profile": [list(segment) for segment in PROFILE]}, "fastest": 5000},
            "gates": {"reject": gate},
        }  # fmt: skip
        (folder / "plant.yaml").write_text(yaml.safe_dump(plant))
        daemon = subprocess.Popen(
            [Path(sys.executable).parent / "inspectd", "--config", folder / "line3.yaml"],
            stderr=subprocess.DEVNULL,
        )
        away: list[tuple[float, float]] = []
        running = Plant(folder / "plant.yaml")
        try:
            until(partial(_trusts, running))
            begin_s = time.monotonic()
            while time.monotonic() < begin_s + run_s:
                time.sleep(min(15.0, begin_s + run_s - time.monotonic() + 0.1))
                if time.monotonic() < begin_s + run_s:
                    running.process.kill()
                    killed_s = time.monotonic()
                    running.process.wait()
                    running = Plant(folder / "plant.yaml")
                    until(partial(_trusts, running))
                    away.append((killed_s, time.monotonic()))
            end_s = time.monotonic()
            realtime = "no realtime priority" not in running.log
        finally:
            running.close()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
        load = os.getloadavg()[0]
        return {"load": load, "realtime": realtime, **_account(folder, begin_s, end_s, away)}


def _trusts(running: Any) -> bool:
    return bool(running.health()["gates"]["reject"]["state"] == "trusted")


def _edges(
    motion: Motion, target: float, half: float, span_s: tuple[float, float]
) -> Iterator[tuple[float, float, bool]]:
    """Give when a part's place begins and ends at the gate while the belt is fast, and how fast it is."""
    for edge, active in ((target - half, True), (target + half, False)):
        for moment_s in motion.crossings(edge, *span_s):
            speed = motion.speed(moment_s)
            if speed > FAST:
                yield moment_s, speed, active


def _account(folder: Path, begin_s: float, end_s: float, away: list[tuple[float, float]]) -> dict[str, Any]:
    """Hold the output's file against the journal and the belt's true motion."""
    from daemon.journal.reader import JournalReader
    from verdicts.verdict import decode_verdict

    changes = [line.split() for line in (folder / "gate.log").read_text().splitlines()]
    switched = Switched([int(at) / 1e9 for at, _ in changes], [state == "1" for _, state in changes])
    belt = SimulatedCounter(SimulatedBelt.model_validate({"profile": PROFILE}))
    lap_s = sum(seconds for seconds, _ in PROFILE)
    laps = int(end_s // lap_s) + 2
    first = int(begin_s // lap_s) - 3
    # The same motion as a list, from a lap before the beginning on.
    motion = Motion(PROFILE * (laps - first))
    shift_s, shift = first * lap_s, belt.at(first * lap_s)
    wall = time.time() - time.monotonic()
    half = 8.0
    expected_let = wrong = missed = crossings = while_away = unknown = stood = 0
    off: list[dict[str, Any]] = []
    timings: list[float] = []
    pulses: list[float] = []
    with JournalReader(folder / "line3.journal") as reader:
        verdicts = [decode_verdict(payload) for _, payload in reader.after(0, 1_000_000)]
    captured = [
        (datetime.fromisoformat(verdict.captured_at).timestamp() - wall, verdict) for verdict in verdicts
    ]
    targets = [(belt.at(at_s) + WAY, at_s, verdict) for at_s, verdict in captured if at_s >= begin_s]
    for target, captured_s, verdict in targets:
        if any(a - 0.2 <= captured_s <= b for a, b in away):
            unknown += 1  # nobody watched the belt when it was captured: thrown out
            continue
        near = [other for other, _, one in targets if abs(other - target) <= 2 * half and one is not verdict]
        for moment_s in motion.crossings(target - shift, captured_s - shift_s, end_s - shift_s):
            at_s = moment_s + shift_s
            if any(a <= at_s <= b + 0.2 for a, b in away):
                while_away += 1
                continue
            if any(motion.speed(moment_s - ago_s) == 0 for ago_s in STOOD_S):
                stood += 1  # parts came while the belt stood: until it has moved, all is thrown out
                continue
            if near:
                continue  # captured while the belt stood or went back: two pictures of one place
            crossings += 1
            expected = verdict.decision == "pass"
            expected_let += expected
            if switched.at(at_s) != expected:
                wrong += not expected
                missed += expected
                off.append(
                    {
                        "seq": verdict.seq,
                        "expected": verdict.decision,
                        "verdict_took_ms": verdict.latency_ms.total,
                        "pulses_per_second": round(motion.speed(moment_s)),
                        "seconds_after_kills": [round(at_s - b, 2) for _, b in away],
                        "way_s": round(at_s - captured_s, 2),
                        "changes_ms": [
                            round((at - at_s) * 1000, 1) for at in switched.times if abs(at - at_s) < 0.05
                        ],
                    }
                )
        if near or verdict.decision != "pass":
            continue
        span_s = captured_s - shift_s, end_s - shift_s
        for edge_s, speed, active in _edges(motion, target - shift, half, span_s):
            at_s = edge_s + shift_s
            if not any(a <= at_s <= b + 0.2 for a, b in away):
                timings.append(abs(switched.nearest(at_s, active) - at_s))
                pulses.append(timings[-1] * speed)
    return {
        "seconds": round(end_s - begin_s, 1),
        "parts": len(targets),
        "times_at_the_gate": crossings,
        "of_them_let_through": expected_let,
        "wrong": wrong,
        "missed": missed,
        "which": off[:20],
        "kills": len(away),
        "away_s": round(statistics.mean(b - a for a, b in away), 2) if away else None,
        "thrown_out_because_nobody_watched": unknown,
        "at_the_gate_while_away": while_away,
        "at_the_gate_as_the_belt_stood": stood,
        "timing_ms_above_600_pulses_per_second": _quantiles(timings),
        "switched": len(timings),
        "off_in_thousandths_of_a_pulse": _quantiles(pulses),
    }


if __name__ == "__main__":
    main()
