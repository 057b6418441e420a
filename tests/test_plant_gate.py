"""The gate: each part meets its own command; what has no pass in time is thrown out."""

import os
import runpy
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from delivery_line import DeliveryLine
from hypothesis import given
from hypothesis import strategies as st
from line_process import LineProcess, a_health, a_verdict
from line_rig import REPOSITORY
from patience import PATIENCE_S
from plant_rig import complaint, plant, run_plant, until, write_plant

from lines.line_config import read_line
from plant.gate.config import GateConfig, GpioEncoder, GpioOutput
from plant.gate.counters import BeltFailed, CounterFile, GpioCounter
from plant.gate.digital import GpioLine
from plant.gate.gates import Gate, Gates, Judged
from plant.gate.hearing import Hearing
from plant.gate.parts import Parts
from plant.gate.position import CountedPosition
from plant.gate.track import Track
from verdicts import Latency, Lost
from verdicts.request import LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 3])
def test_every_part_meets_its_command_on_a_belt_that_varies_stops_and_reverses(seed: int) -> None:
    benchmark = runpy.run_path(str(REPOSITORY / "benchmarks/gate.py"))
    found = benchmark["simulated"](1500, seed, kill_every_s=20)
    assert (found["wrong"], found["missed"]) == (0, 0), found
    assert found["kills"] >= 3 and found["times_at_the_gate"] > 1500 - 100
    assert found["counted"]["passed"] > 900


# The true processes.

TOOK_S = 0.03
"""A little longer than ``a_verdict`` says that it took from the capture to the verdict."""


def now(ahead_s: float = 0.0) -> str:
    return f"{datetime.fromtimestamp(time.time() + ahead_s, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def changes(folder: Path) -> list[tuple[float, bool]]:
    lines = [line.split() for line in (folder / "gate.log").read_text().splitlines()]
    return [(int(at) / 1e9, state == "1") for at, state in lines]


def active_at(folder: Path, moment_s: float) -> bool:
    return next((state for at, state in reversed(changes(folder)) if at <= moment_s), False)


@pytest.mark.slow
def test_a_gate_fires_when_the_part_is_there_and_rests_when_nobody_knows(
    line: DeliveryLine, tmp_path: Path
) -> None:
    gate = {"camera": "top", "after": "2 s", "window": "300 ms", "output": {"simulated": "gate.log"}}
    config = write_plant(tmp_path, line, gates={"reject": gate})
    begun_s = time.monotonic()
    with plant(config) as running:
        until(lambda: running.health()["gates"]["reject"]["state"] == "trusted")
        start_s = time.monotonic() - begun_s
        captured = {}
        decisions = ["pass", "reject", "pass", "fault", "pass", "pass"]
        for seq, decision in enumerate(decisions, 1):
            captured[seq] = time.monotonic() - TOOK_S
            changed: dict[str, Any] = {"decision": decision, "captured_at": now(-TOOK_S)}
            line.judge(seq, seq, **(changed | ({"score": 0.9} if decision == "reject" else {})))
            time.sleep(0.5)
        # A verdict that comes when its part is there already is none.
        captured[7] = time.monotonic() - 2.5
        line.judge(7, 7, captured_at=now(-2.5))
        # So is one of a clock that was set back.
        line.judge(8, 8, captured_at=now(5.0))
        time.sleep(max(0.0, captured[6] + 2.3 - time.monotonic()))
        for seq, decision in enumerate(decisions, 1):
            assert active_at(tmp_path, captured[seq] + 2) == (decision == "pass"), seq
            assert not active_at(tmp_path, captured[seq] + 1.75)

        def counted() -> tuple[int, ...]:
            now = running.health()["gates"]["reject"]
            return tuple(now[key] for key in ("passed", "ejected", "late", "unknown"))

        until(lambda: counted() == (4, 3, 1, 1), what=counted)
        passed = 'inspectd_gate_parts_total{command="passed",gate="reject",line="line3"} 4.0'
        late = 'inspectd_gate_margin_seconds_bucket{gate="reject",le="0.0",line="line3"} 1.0'
        until(lambda: passed in (metrics := running.get("/metrics")[1]) and late in metrics)

        # Parts on their way when the process is killed are found again in the journal.
        captured[9] = time.monotonic() - TOOK_S
        line.judge(9, 9, captured_at=now(-TOOK_S))
        time.sleep(0.5)
        line.judge(10, 10, captured_at=now(-TOOK_S), decision="reject", score=0.9)
        pid = running.process.pid
        [gates] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        running.process.kill()
        until(lambda: not Path("/proc", gates).exists())  # its outputs rest
    # Late enough for this machine to start it again.
    after_s = round(3 + 4 * start_s)
    config = write_plant(tmp_path, line, gates={"reject": gate | {"after": f"{after_s} s"}})
    time.sleep(0.5)
    captured[11] = time.monotonic() - TOOK_S
    line.judge(11, 11, captured_at=now(-TOOK_S))
    with plant(config) as running:
        until(lambda: running.health()["gates"]["reject"]["on_their_way"] >= 1)
        time.sleep(max(0.0, captured[11] + after_s + 0.3 - time.monotonic()))
        assert active_at(tmp_path, captured[11] + after_s)

        line.judge(12, 12, captured_at=now(-TOOK_S))
        line.kill()
        until(lambda: running.health()["gates"]["reject"]["state"] == "ejecting")
        assert "silent" in running.health()["gates"]["reject"]["error"]
        assert running.get("/readyz")[0] == 503
        assert running.stop() == 0
    assert not changes(tmp_path)[-1][1]


def test_the_gates_hear_the_line_themselves_and_know_what_they_missed(tmp_path: Path) -> None:
    line = LineProcess()
    (tmp_path / "line3.yaml").write_text(f"line: line3\npublish: {line.address}\n")
    hearing = Hearing(read_line(tmp_path / "line3.yaml"), PATIENCE_S)
    line.wait_for_subscriber()
    assert hearing.take() is None and not hearing.begun
    assert hearing.trouble() == "the line has not been heard yet"

    def hear(*messages: Any, count: int) -> list[tuple[str, int]]:
        """Publish, and take what comes until so much was missed in all."""
        line.publish(*messages)
        taken = []
        while len(hearing.missed) < count:
            assert select.select([hearing], [], [], PATIENCE_S)[0]
            while (verdict := hearing.take()) is not None:
                taken.append((verdict.boot, verdict.seq))
        return taken

    assert hear(a_verdict(1), a_verdict(3), a_health(seq=4), count=2) == [("aa", 1), ("aa", 3)]
    assert hearing.begun and hearing.trouble() is None
    assert hear((b"line3/pass/top", b"no verdict"), a_verdict(2, boot="bb"), count=4) == [("bb", 2)]
    assert list(hearing.missed) == [
        Lost("aa", 2, 2), Lost("aa", 4, 4), Lost("bb", 1, 1), Lost("aa", 5, LARGEST)
    ]  # fmt: skip
    hear(a_verdict(4, boot="bb"), a_health(seq=4, boot="bb", state="failed"), count=5)
    until(lambda: hearing.take() is None and hearing.trouble() == "the line has given up")
    line.kill()


# Encoders and outputs.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


def counted(tmp_path: Path, clock: Clock, count: Path, **keys: Any) -> tuple[Gates, Gate]:
    """Give a gate 100 pulses after the camera, on a belt whose count stands in a file."""
    config = GateConfig.model_validate(
        {"camera": "top", "after_pulses": 100, "window": 10, "output": {"simulated": Path("x")}}
        | keys.pop("gate", {})
    )
    track = Track(tmp_path / "track", 0.5)
    position = CountedPosition(
        CounterFile(count), track, way=100, bits=keys.get("bits"), fastest=keys.get("fastest")
    )
    output: Any = SimpleNamespace(set=lambda _: None, close=lambda: None, trouble=None)
    gate = Gate("reject", config, 100, output, Parts(5, 100))
    gates = Gates(
        {"reject": gate}, position, track, lambda: None, clock=lambda: clock.now, wall=lambda: clock.now
    )
    return gates, gate


def judged(clock: Clock, seq: int, decision: str = "pass") -> Judged:
    from line_process import a_verdict

    stamp = f"{datetime.fromtimestamp(clock.now, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    verdict = a_verdict(seq, decision=decision, captured_at=stamp, latency_ms=Latency(0.0, 0.0, 0.0))
    return Judged.of(verdict, clock.now, clock.now)


def drive(clock: Clock, gates: Gates, count: Path, begin: int, end: int) -> None:
    for value in range(begin, end):
        count.write_text(f"{value}\n")
        clock.now += 0.001
        gates.turn()


@pytest.mark.parametrize("bits", [None, 8])
def test_an_encoder_that_begins_anew_goes_on_counting(tmp_path: Path, bits: int | None) -> None:
    clock, count = Clock(), tmp_path / "count"
    count.write_text("200\n")
    gates, gate = counted(tmp_path, clock, count, bits=bits)
    drive(clock, gates, count, 200, 250)
    gates.came(judged(clock, 1))
    gates.turn()
    active = []
    for value in range(250, 360):
        count.write_text(f"{value % 256 if bits else value}\n")
        clock.now += 0.001
        gates.turn()
        active.append((value, gate.active))
    assert [value for value, on in active if on] == list(range(344, 354))


@given(
    targets=st.lists(st.integers(0, 40).map(lambda half: half / 2), min_size=1, max_size=6),
    passes=st.lists(st.booleans(), min_size=6, max_size=6),
    position=st.integers(0, 60).map(lambda half: half / 2),
    share=st.floats(0, 1),
)
def test_between_two_edges_a_gate_has_nothing_to_do(
    targets: list[float], passes: list[bool], position: float, share: float
) -> None:
    parts = Parts(5, 1000)
    for number, target in enumerate(targets):
        parts.add_behind(target, ("aa", number), passes=passes[number], known_s=0.0)

    def does(at: float) -> tuple[bool, bool]:
        return parts.lets_through(at), parts.throws_out(at)

    ahead = parts.next_edge(position, forwards=True)
    between = position + share * ((position + 50 if ahead is None else ahead) - position)
    assert ahead is None or ahead > position
    assert between == ahead or does(between) == does(position)
    behind = parts.next_edge(position, forwards=False)
    assert behind is None or behind <= position
    between = position - share * (position - (position - 50 if behind is None else behind))
    assert does(between) == does(position)


def test_a_jump_throws_out_what_is_on_its_way_and_what_comes_after_it_passes(tmp_path: Path) -> None:
    clock, count = Clock(), tmp_path / "count"
    count.write_text("0\n")
    gates, gate = counted(tmp_path, clock, count, fastest=2000)
    drive(clock, gates, count, 0, 50)
    gates.came(judged(clock, 1))
    drive(clock, gates, count, 50, 100)
    drive(clock, gates, count, 900, 901)
    assert gate.trouble is None or "jumped by 801" in gate.trouble
    clock.now += 0.06
    gates.turn()
    assert not len(gate.parts)
    drive(clock, gates, count, 901, 960)
    gates.came(judged(clock, 2))
    gates.turn()
    passed = []
    for value in range(960, 1070):
        drive(clock, gates, count, value, value + 1)
        passed.append(gate.active)
    assert gate.counts.passed == 1 and any(passed)
    count.write_text("nonsense\n")
    clock.now += 0.06
    gates.turn()
    assert gate.trouble is not None and "nonsense" in gate.trouble and not gate.active


def test_a_belt_that_stands_still_while_parts_come_is_told(tmp_path: Path) -> None:
    clock, count = Clock(), tmp_path / "count"
    count.write_text("0\n")
    gates, gate = counted(tmp_path, clock, count)
    drive(clock, gates, count, 0, 50)
    for seq in range(1, 6):
        clock.now += 0.1
        gates.turn()
        gates.came(judged(clock, seq))
        gates.turn()
    clock.now += 0.06
    gates.turn()
    assert gate.trouble == "the belt stands still while parts come"
    drive(clock, gates, count, 50, 80)
    clock.now += 0.06
    gates.turn()
    assert gate.trouble is None


def test_a_step_of_the_clock_lets_nothing_pass_that_was_judged_around_it(tmp_path: Path) -> None:
    clock, count = Clock(), tmp_path / "count"
    count.write_text("0\n")
    gates, gate = counted(tmp_path, clock, count)
    wall = {"ahead": 0.0}
    gates._wall = lambda: clock.now + wall["ahead"]
    drive(clock, gates, count, 0, 60)
    wall["ahead"] = 30.0
    clock.now += 0.06
    gates.turn()
    gates.came(judged(clock, 1)._replace(heard_at=clock.now + 30.0))
    gates.turn()
    assert (gate.counts.unknown, gate.parts.waiting()) == (1, 0)


def test_a_gate_that_ejects_throws_out_all_until_it_knows_what_comes(tmp_path: Path) -> None:
    clock, count = Clock(), tmp_path / "count"
    count.write_text("0\n")
    gates, gate = counted(tmp_path, clock, count, gate={"fires": "eject"})
    drive(clock, gates, count, 0, 10)
    assert gate.active  # what is between camera and gate nobody knows
    drive(clock, gates, count, 10, 120)
    assert not gate.active
    gates.came(judged(clock, 1, "reject"))
    gates.turn()
    drive(clock, gates, count, 120, 220)
    assert gate.active
    drive(clock, gates, count, 220, 240)
    assert not gate.active


class Request:
    """A chip's lines, as gpiod gives them."""

    def __init__(self) -> None:
        self.values: list[tuple[int, Any]] = []
        self.events: list[Any] = []
        self.released = False

    def set_value(self, line: int, value: Any) -> None:
        self.values.append((line, value))

    def get_values(self, lines: list[int]) -> list[Any]:
        import gpiod

        return [gpiod.line.Value.INACTIVE for _ in lines]

    def wait_edge_events(self, timeout: float) -> bool:
        if not self.events:
            time.sleep(0.005)
        return bool(self.events)

    def read_edge_events(self) -> list[Any]:
        taken, self.events = self.events, []
        return taken

    def release(self) -> None:
        self.released = True


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A pretended chip: few kernels have gpio-sim."""
    gpiod = pytest.importorskip("gpiod", reason="needs gpiod: pip install 'inspectd[plant]'")
    asked: dict[str, Any] = {"request": Request()}

    def request_lines(chip: str, consumer: str, config: Any) -> Request:
        asked.update(chip=chip, config=config)
        if chip == "/dev/none":
            raise FileNotFoundError(2, "No such file or directory")
        found: Request = asked["request"]
        return found

    monkeypatch.setattr(gpiod, "request_lines", request_lines)
    return asked


def test_a_gpio_output_rests_at_first_and_at_the_end(chip: dict[str, Any]) -> None:
    from gpiod.line import Direction, Value

    output = GpioLine(
        GpioOutput(chip=Path("/dev/gpiochip0"), line=17, active_low=True), "gates.reject.output"
    )
    [settings] = chip["config"].values()
    assert (settings.direction, settings.output_value) == (Direction.OUTPUT, Value.INACTIVE)
    assert settings.active_low and list(chip["config"]) == [(17,)]
    output.set(True)
    output.close()
    assert chip["request"].values == [(17, Value.ACTIVE), (17, Value.INACTIVE)]
    assert chip["request"].released
    with pytest.raises(Exception, match=r"gates.reject.output.gpio: /dev/none cannot be had: No such file"):
        GpioLine(GpioOutput(chip=Path("/dev/none"), line=1), "gates.reject.output")


def test_a_gpio_encoder_counts_with_direction_and_tells_of_lost_edges(chip: dict[str, Any]) -> None:
    counter = GpioCounter(GpioEncoder(chip=Path("/dev/gpiochip0"), a=1, b=2))
    types = SimpleNamespace(RISING_EDGE=1, FALLING_EDGE=0)
    sent = 0

    def turn(edges: list[tuple[int, int]], skip: int = 0) -> None:
        nonlocal sent
        sent += skip
        events = []
        for line, rising in edges:
            sent += 1
            events.append(SimpleNamespace(line_offset=line, event_type=rising, Type=types, global_seqno=sent))
        chip["request"].events = events

    forwards = [(1, 1), (2, 1), (1, 0), (2, 0)]
    turn(forwards * 5)
    until(lambda: counter.read() == 20)
    turn([(2, 1), (1, 1), (2, 0), (1, 0)])
    until(lambda: counter.read() == 16)
    turn(forwards, skip=3)
    with pytest.raises(BeltFailed, match="lost 3 edges"):
        until(lambda: counter.read() == 99)
    counter.close()


class SimulatedChip:
    """A GPIO chip of the kernel's own making (gpio-sim), and the ends of its lines."""

    def __init__(self, configfs: Path) -> None:
        self.made = configfs / "gpio-sim/inspectd"
        (self.made / "bank0").mkdir(parents=True)
        (self.made / "bank0/num_lines").write_text("8")
        (self.made / "live").write_text("1")
        self.name = (self.made / "bank0/chip_name").read_text().strip()
        self.device = Path("/dev") / self.name
        self.ends = Path("/sys/devices/platform") / (self.made / "dev_name").read_text().strip() / self.name

    def value(self, line: int) -> str:
        return (self.ends / f"sim_gpio{line}/value").read_text().strip()

    def pull(self, line: int, *, up: bool) -> None:
        (self.ends / f"sim_gpio{line}/pull").write_text("pull-up" if up else "pull-down")

    def close(self) -> None:
        (self.made / "live").write_text("0")
        (self.made / "bank0").rmdir()
        self.made.rmdir()


@pytest.fixture
def simulated_chip() -> Iterator[SimulatedChip]:
    pytest.importorskip("gpiod", reason="needs gpiod: pip install 'inspectd[plant]'")
    configfs = Path("/sys/kernel/config")
    if os.getuid() != 0:
        pytest.skip("a gpio-sim chip is made by root")
    if shutil.which("modprobe") is not None:
        subprocess.run(["modprobe", "gpio-sim"], capture_output=True, check=False)
    if configfs.is_dir() and not any(configfs.iterdir()):
        subprocess.run(["mount", "-t", "configfs", "none", configfs], capture_output=True, check=False)
    if not (configfs / "gpio-sim").is_dir():
        pytest.skip("this kernel has no gpio-sim")
    chip = SimulatedChip(configfs)
    yield chip
    chip.close()


def test_an_output_and_an_encoder_on_a_gpio_sim_chip(simulated_chip: SimulatedChip) -> None:
    output = GpioLine(GpioOutput(chip=simulated_chip.device, line=5), "gates.reject.output")
    assert simulated_chip.value(5) == "0"
    output.set(True)
    assert simulated_chip.value(5) == "1"
    with pytest.raises(Exception, match="cannot be had: Device or resource busy"):
        GpioLine(GpioOutput(chip=simulated_chip.device, line=5), "gates.other.output")
    output.close()
    assert simulated_chip.value(5) == "0"
    for line in (1, 2):
        simulated_chip.pull(line, up=False)
    counter = GpioCounter(GpioEncoder(chip=simulated_chip.device, a=1, b=2))
    for _ in range(25):
        for line, up in ((1, True), (2, True), (1, False), (2, False)):
            simulated_chip.pull(line, up=up)
    until(lambda: counter.read() == 100)
    for line, up in ((2, True), (1, True), (2, False), (1, False)):
        simulated_chip.pull(line, up=up)
    until(lambda: counter.read() == 96)
    counter.close()


GATE = {"camera": "top", "after": "1.25 s", "window": "80 ms", "output": {"simulated": "gate.log"}}


PULSES = {"camera": "top", "after_pulses": 10, "window": 2, "output": {"simulated": "gate.log"}}
ENCODER = {"modbus": {"address": "tcp://h", "register": 65535}}
COIL = {"output": {"modbus": {"address": "tcp://h", "coil": 5}}}
SAME_COIL = {"output": {"modbus": {"address": "tcp://h:502", "coil": 5}}}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"gates": {"a": GATE | {"after": "1.25"}}}, "gates.a.after: found '1.25', expected"),
        ({"gates": {"a": GATE | {"window": 40}}}, "expected it in the unit of after, such as 80 ms"),
        ({"gates": {"a": GATE | {"camera": "s"}}}, "gates.a.camera: found s, expected one of line"),
        ({"gates": {"a": GATE | {"after": "0.5 m", "window": "4 cm"}}}, "expected the key belt.speed"),
        ({"gates": {"a": {**GATE, "after": None, "after_pulses": 9, "window": 4}}}, "expected the key belt"),
        ({"gates": {"a": GATE | {"fires": "eject", "after": "900 ms"}}}, "before the line's deadline_ms"),
        ({"gates": {"a": GATE, "b": GATE}}, "is also that of gates.a; expected one for each"),
        ({"gates": {"a": GATE | {"output": {}}}}, "gates.a.output: expected exactly one of"),
        ({"gates": {"a": GATE | {"outptu": 1}}}, "gates.a.outptu: unknown key; did you mean output?"),
        ({"gates": {"a": GATE}, "belt": {"speed": "0.4 km/h"}}, "belt.speed: found '0.4 km/h', expected"),
        ({"gates": {"a": GATE}, "belt": {"counter": "c", "speed": "1 m/s"}}, "expected exactly one of speed"),
        ({"belt": {"speed": "0.4 m/s"}}, "belt: found one without gates"),
        ({"gates": {"a": GATE | {"pulse": "0 ms"}}}, "gates.a.pulse: found '0 ms', expected more than 0"),
        ({"gates": {"a": PULSES}, "belt": {"gpio": {"chip": "c", "a": 1, "b": 1}}}, "is also track a"),
        ({"gates": {"a": PULSES}, "belt": ENCODER}, "at most 65534"),
        ({"gates": {"a": GATE | COIL, "b": GATE | SAME_COIL}}, "at h:502 is also that of gates.a"),
        ({"gates": {"a": PULSES}, "belt": {"simulated": {"profile": []}}}, "profile: found nothing in it"),
        ({"silence": "0 s"}, "silence: found '0 s', expected more than 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, keys: dict[str, Any], wanted: str) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\ncameras: {top: {source: x}}\n"
    )
    assert wanted in complaint(write_plant(tmp_path, **keys))


def test_a_device_that_is_not_there_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\ncameras: {top: {source: x}}\n"
    )
    gate = GATE | {"after": None, "after_pulses": 10, "window": 2}
    config = write_plant(tmp_path, gates={"a": gate}, belt={"counter": "none"})
    done = run_plant("--config", config)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"inspectd-plant: {config}: belt.counter: {tmp_path}/none cannot be read: No such file or directory"
    ]
