"""One trigger, one verdict: by command, by an input, by a wire; and what is said without a picture."""

import os
import queue
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from camera_rig import CameraRig, supervise
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S

from daemon.capture.choice import Missed, Outcome, Taken
from daemon.capture.drivers import CameraFailed, CameraSettings, Picture, Trigger
from daemon.capture.drivers.v4l2 import open_device
from daemon.capture.drivers.v4l2_controls import set_controls
from daemon.capture.triggers.gpio import GpioInput
from daemon.capture.triggers.modbus import ModbusInput
from daemon.capture.triggers.triggers import Triggers
from foundation.errors import InputError
from verdicts.checks import MalformedMessage
from verdicts.request import Trigger as Request
from verdicts.request import decode_request, encode_request

MS = 1_000_000
PICTURE = Picture(np.zeros((8, 8, 3), np.uint8), None)
ENDLESS = "simulated://belt?width=96&height=96&diameter=60&speed=9"
SOFTWARE = Trigger("software", window_ms=200, apart_ms=20)


def told(outcomes: list[Outcome]) -> list[tuple[str, str | None]]:
    return [
        (f"{outcome.captured_ns // MS} ms" if isinstance(outcome, Taken) else outcome.error, outcome.part)
        for outcome in outcomes
    ]


def test_the_picture_nearest_in_time_is_taken_whichever_is_heard_of_first() -> None:
    triggers = Triggers(Trigger("software", apart_ms=2), 0)
    assert triggers.look(PICTURE, 100 * MS) == []
    triggers.fire(104 * MS, "a")
    triggers.fire(128 * MS, "b")
    assert told(triggers.look(PICTURE, 130 * MS)) == [("100 ms", "a"), ("130 ms", "b")]
    assert triggers.look(PICTURE, 160 * MS) == []
    triggers.fire(131 * MS, "late")  # of the time of two pictures ago; that picture has its verdict
    triggers.fire(188 * MS, "c")
    assert told(triggers.look(PICTURE, 190 * MS)) == [("160 ms", "late"), ("190 ms", "c")]
    watch = triggers.watch()
    assert (watch.pictures, watch.parts, watch.missed, watch.triggers, watch.doubles) == (4, 4, 0, 4, 0)


def test_a_part_that_comes_into_view_later_than_its_trigger() -> None:
    triggers = Triggers(Trigger("software", delay_ms=250), 0)
    triggers.fire(0, "a")
    pictures = {at: told(triggers.look(PICTURE, at * MS)) for at in range(0, 400, 40)}
    assert {at: found for at, found in pictures.items() if found} == {280: [("240 ms", "a")]}


def test_doubles_and_triggers_without_a_picture_are_faults() -> None:
    triggers = Triggers(SOFTWARE, 0)
    triggers.fire(1000 * MS, "a")
    for bounce in (1003, 1007):
        triggers.fire(bounce * MS)
    doubled = told(triggers.overdue(1010 * MS))
    assert [error.split(":")[0] for error, _ in doubled] == ["a double trigger"] * 2
    assert "4.0 ms after the one before; expected at least apart_ms 20" in doubled[1][0]
    assert triggers.overdue(1300 * MS) == []
    (missed,) = triggers.overdue(1500 * MS)
    assert isinstance(missed, Missed) and missed.part == "a" and missed.captured_ns == 1000 * MS
    assert missed.error == "a trigger without a picture: the camera took none within window_ms 200"
    triggers.fire(2000 * MS)
    assert "without a picture" in told(triggers.look(PICTURE, 2300 * MS))[0][0]
    watch = triggers.watch()
    assert (watch.missed, watch.triggers, watch.doubles) == (2, 4, 2)


def test_no_trigger_for_too_long_is_told_once() -> None:
    triggers = Triggers(Trigger("software", silent_after_s=2), 0)
    assert [len(triggers.overdue(at * 100 * MS)) for at in range(18, 24)] == [0, 0, 1, 0, 0, 0]
    assert triggers.watch().trouble == "no trigger for 2 s"
    triggers.fire(2500 * MS)
    assert triggers.watch().trouble is None
    assert told(triggers.look(PICTURE, 2510 * MS)) == [("2510 ms", None)]
    assert told(triggers.overdue(4600 * MS))[0][0] == "no trigger for 2 s"


def test_a_camera_that_is_triggered_by_wire_gives_each_picture_a_verdict_and_tells_bouncing() -> None:
    triggers = Triggers(Trigger("hardware", apart_ms=20), 0)
    outcomes = [
        outcome
        for at in (100, 200, 204, 300)
        for outcome in triggers.look(PICTURE._replace(device_ns=at * MS), (at + 7) * MS)
    ]
    assert [type(outcome) for outcome in outcomes] == [Taken, Taken, Missed, Taken]
    assert triggers.watch().doubles == 1


@given(
    st.lists(st.integers(0, 3000), max_size=40),
    st.lists(st.integers(0, 3000), max_size=60),
    st.integers(0, 300),
)
def test_each_trigger_has_one_outcome_and_each_picture_one_verdict(
    fired: list[int], taken: list[int], delay: int
) -> None:
    triggers = Triggers(Trigger("software", delay_ms=delay), 0)
    outcomes: list[Outcome] = []
    happened = [(at, "fire") for at in fired] + [(at, "picture") for at in taken]
    for number, (at, what) in enumerate(sorted(happened), 1):
        if what == "fire":
            triggers.fire(at * MS, str(at), number)
        else:
            outcomes += triggers.look(PICTURE, at * MS)
        outcomes += triggers.overdue(at * MS)
    outcomes += triggers.finish(4000 * MS)
    numbers = Counter(outcome.trigger for outcome in outcomes)
    assert len(numbers) == len(fired) and set(numbers.values()) <= {1}
    for outcome in outcomes:
        if isinstance(outcome, Taken):
            assert abs(outcome.captured_ns / MS - int(outcome.part or 0) - delay) <= 200


# Through a camera process.


def fire(rig: CameraRig, part: str | None, at_ns: int | None = None) -> None:
    rig.cameras["top"].trigger(time.monotonic_ns() if at_ns is None else at_ns, part)


def test_a_software_trigger_takes_a_frame_and_names_the_part() -> None:
    async def story(rig: CameraRig) -> None:
        trigger = Trigger("software", apart_ms=0.01)  # a picture may come sooner than 1 ms after its trigger
        camera = rig.start("top", source=ENDLESS, fps=100, trigger=trigger)
        await rig.until_state("top", "running")
        for part in ("4711", "4712", None):
            seen = len(rig.arrivals["top"])
            fire(rig, part)
            await rig.until(lambda seen=seen: len(rig.arrivals["top"]) > seen)  # type: ignore[misc]
        at_ns = time.monotonic_ns()
        fire(rig, "twice", at_ns)
        fire(rig, "twice", at_ns)
        await rig.until(lambda: len(rig.arrivals["top"]) == 5)
        await rig.until(lambda: camera.watch is not None and camera.watch.doubles == 1)
        assert camera.watch is not None and camera.watch.triggers == 5

    arrivals = supervise(story).arrivals["top"]
    assert [arrival.part for arrival in arrivals[:2]] == ["4711", "4712"]
    answers = sorted((arrival.error or "judged")[:16] for arrival in arrivals[3:])
    assert answers == ["a double trigger", "judged"]
    assert all(arrival.slot is not None for arrival in arrivals[:3])


def test_triggers_are_faults_when_the_camera_dies_is_away_or_hangs() -> None:
    async def story(rig: CameraRig) -> None:
        source = ENDLESS + "&trouble=hang@40"
        camera = rig.start("top", source=source, fps=100, trigger=SOFTWARE, stalled_after_s=3)
        await rig.until_state("top", "running")
        await rig.until(lambda: camera.watch is not None and camera.watch.pictures >= 39)
        fire(rig, "hung")
        await rig.until(lambda: len(rig.arrivals["top"]) == 1)  # told long before the camera is given up
        await rig.until_state("top", "failed")
        fire(rig, "away")
        await rig.until(lambda: any(arrival.part == "away" for arrival in rig.arrivals["top"]))
        await rig.until_state("top", "running")
        fire(rig, "back")
        await rig.until(lambda: rig.arrivals["top"][-1].part == "back")

    rig = supervise(story)
    errors = {str(arrival.part): arrival.error for arrival in rig.arrivals["top"]}
    assert "without a picture" in str(errors["hung"])
    assert errors["away"] == "a trigger while the camera is failed"
    assert errors["back"] is None


def test_a_folder_waits_for_its_triggers() -> None:
    async def story(rig: CameraRig) -> None:
        rig.start("top", source="simulated://?width=64&height=64&parts=2", trigger=SOFTWARE)
        await rig.until_state("top", "running")
        for count in (1, 2):
            fire(rig, None, time.monotonic_ns() + count)
            await rig.until(lambda count=count: len(rig.arrivals["top"]) == count)  # type: ignore[misc]
            time.sleep(0.03)  # triggers that are doubles otherwise
        fire(rig, "none left")
        await rig.until_state("top", "ended")

    parts = [arrival.part for arrival in supervise(story).arrivals["top"]]
    assert parts == ["000000 good", "000001 good", "none left"]


def test_a_camera_without_software_triggers_refuses_them() -> None:
    async def story(rig: CameraRig) -> None:
        rig.start("top", source=ENDLESS, fps=100)
        with pytest.raises(InputError, match=r"cameras.top.trigger: found none, expected by: software"):
            fire(rig, "x")

    supervise(story)


# Inputs.


class FakeChip:
    """Stands in for libgpiod on a machine whose kernel has no GPIO chip."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpiod = pytest.importorskip("gpiod", reason="wants pip install 'inspectd[gpio]'")
        self.line = gpiod.line
        monkeypatch.setattr(gpiod, "request_lines", self.request_lines)
        self.edges: queue.Queue[int | None] = queue.Queue()
        self.asked: dict[str, Any] = {}

    def request_lines(self, path: str, *, consumer: str, config: dict[Any, Any]) -> "FakeChip":
        if path != "/dev/gpiochip0":
            raise FileNotFoundError(2, "No such file or directory")
        self.asked = {"consumer": consumer, **{str(line): settings for line, settings in config.items()}}
        return self

    def read_edge_events(self) -> list[SimpleNamespace]:
        at_ns = self.edges.get()
        if at_ns is None:
            raise OSError(19, "No such device")
        return [SimpleNamespace(timestamp_ns=at_ns)]


def test_edges_of_a_gpio_line_come_with_the_kernels_time(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = FakeChip(monkeypatch)
    trigger = Trigger("gpio", line=17, edge="falling", debounce_ms=5)
    edges = GpioInput(trigger).edges()
    settings = chip.asked["17"]
    assert settings.edge_detection == chip.line.Edge.FALLING
    assert settings.debounce_period.total_seconds() == 0.005
    for at_ns in (5, 9, None):
        chip.edges.put(at_ns)
    assert [next(edges), next(edges)] == [5, 9]
    with pytest.raises(CameraFailed, match="trigger: /dev/gpiochip0, line 17: No such"):
        next(edges)
    with pytest.raises(InputError, match=r"trigger: /dev/gpiochip7 cannot be had: No such file"):
        GpioInput(Trigger("gpio", line=17, chip="/dev/gpiochip7"))


class Plc(socketserver.ThreadingTCPServer):
    """A Modbus/TCP device with ten discrete inputs, as its specification says and no more."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.inputs = [False] * 10
        super().__init__(("127.0.0.1", 0), _Asked)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Asked(socketserver.StreamRequestHandler):
    server: Plc

    def handle(self) -> None:
        while len(head := self.rfile.read(12)) == 12:
            transaction, _, _, unit, function, first, count = struct.unpack(">HHHBBHH", head)
            if function != 2 or first + count > len(self.server.inputs):
                body = struct.pack(">BBB", unit, function | 0x80, 2)  # illegal address
            else:
                body = struct.pack(">BBBB", unit, function, 1, self.server.inputs[first])
            self.wfile.write(struct.pack(">HHH", transaction, 0, len(body)) + body)


@pytest.fixture
def plc() -> Iterator[Plc]:
    pytest.importorskip("pymodbus", reason="wants pip install 'inspectd[modbus]'")
    with Plc() as plc:
        yield plc
        plc.shutdown()


def test_edges_of_a_discrete_input_over_modbus(plc: Plc) -> None:
    troubles: list[str | None] = []
    trigger = Trigger("modbus", address=f"127.0.0.1:{plc.port}", input=3, poll_ms=1)
    edges = ModbusInput(trigger, troubles.append).edges()
    came: queue.Queue[int] = queue.Queue()

    def listen() -> None:
        for at_ns in edges:
            came.put(at_ns)

    threading.Thread(target=listen, daemon=True).start()
    deadline = time.monotonic() + PATIENCE_S
    while None not in troubles and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(2):
        before_ns = time.monotonic_ns()
        plc.inputs[3] = True
        at_ns = came.get(timeout=PATIENCE_S)
        assert before_ns - 50 * MS < at_ns <= time.monotonic_ns()
        plc.inputs[3] = False
        time.sleep(0.05)  # so that the falling edge is read, too
    assert came.empty()


def test_a_plc_that_is_away_is_told(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pymodbus", reason="wants pip install 'inspectd[modbus]'")
    from fuzzing.free_port import free_port

    troubles: list[str | None] = []
    address = f"127.0.0.1:{free_port()}"
    state = ModbusInput(Trigger("modbus", address=address, input=3), troubles.append)._state()
    assert state is None
    assert troubles == [f"trigger.address: {address} does not answer: no trigger can be seen"]
    assert caplog.messages == []  # of the library, on stderr
    triggers = Triggers(Trigger("modbus", address=address, input=3), 0)
    triggers.tell(troubles[0])
    assert told(triggers.overdue(5 * MS)) == [(troubles[0], None)]
    assert triggers.overdue(6 * MS) == [] and triggers.watch().trouble == troubles[0]
    triggers.tell(None)
    assert triggers.watch().trouble is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"by": "gpio"}, "line: missing; expected it beside by: gpio"),
        ({"by": "modbus", "address": "plc"}, "input: missing; expected it beside by: modbus"),
        (
            {"by": "modbus", "address": "plc:0", "input": 1},
            "address: found plc:0, expected HOST or HOST:PORT",
        ),
        ({"by": "software", "strobe": "Line2"}, "strobe: is of by: hardware; found by: software"),
        ({"by": "motion", "edge": "falling"}, "edge: is of by: hardware or gpio or modbus; found by: mo"),
        ({"by": "gpio", "line": -3}, "line: found -3, expected a number from 0, or a name"),
        ({"by": "hardware", "line": 3}, "line: found 3, expected the name of the camera's input"),
    ],
)
def test_keys_that_do_not_belong_together_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as refused:
        Trigger(**settings)
    assert expected in str(refused.value)


def test_the_request_of_a_trigger_is_believed_only_when_it_is_whole() -> None:
    request = Request(7, "top", "4711")
    assert decode_request(encode_request(request)) == request
    assert decode_request(encode_request(Request(7, "top", None))) == Request(7, "top", None)
    for camera, part in (("to p", "x"), ("top", ""), ("top", "x" * 201), ("top", 5)):
        with pytest.raises(MalformedMessage):
            encode_request(Request(7, camera, part))  # type: ignore[arg-type]


class FakeDevice:
    """The kernel's side of a V4L2 device with three controls."""

    def __init__(self) -> None:
        # number: name, least, most, value; the gain takes even values only
        self.controls = {1: [b"Auto Exposure", 0, 3, 3], 5: [b"Exposure Time, Absolute", 1, 5000, 157]}
        self.controls[9] = [b"Gain", 0, 100, 0]

    def __call__(self, device: int, request: int, data: bytearray) -> None:
        number = struct.unpack_from("=I", data)[0]
        if request == 0xC0445624:
            later = [at for at in self.controls if at > number & 0x7FFF_FFFF]
            if not later:
                raise OSError(22, "Invalid argument")
            name, least, most, value = self.controls[later[0]]
            data[:] = struct.pack("=II32siiiiI8x", later[0], 1, name, least, most, 1, value, 0)
        elif request == 0xC008561C:
            value = struct.unpack_from("=i", data, 4)[0]
            self.controls[number][3] = value // 2 * 2 if number == 9 else value
        else:
            struct.pack_into("=i", data, 4, self.controls[number][3])


def test_a_v4l2_device_that_waits_for_its_wire_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"  # OpenCV's variable, seconds; its default is 10
    monkeypatch.setenv(waits, "10")
    for trigger, seconds in ((None, 10), (SOFTWARE, 10), (Trigger("hardware"), 31_536_000)):
        with pytest.raises(CameraFailed, match="does not open as a V4L2 camera"):
            open_device(CameraSettings("/dev/null", trigger=trigger))
        assert int(os.environ[waits]) == seconds


def test_controls_of_a_v4l2_device_are_set_and_read_back() -> None:
    device = FakeDevice()
    trigger = Trigger("hardware", exposure_us=4000)
    set_controls(CameraSettings("/dev/null", features={"gain": 20}, trigger=trigger), device)
    assert [control[3] for control in device.controls.values()] == [1, 40, 20]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"features": {"gain": 21}}, "features.gain: the device keeps 20; 21 was asked for"),
        ({"features": {"gain": 101}}, "features.gain: found 101, expected 0 to 100"),
        ({"features": {"gian": 1}}, "no control gian; it has auto_exposure, exposure_time_absolute, gain"),
        ({"features": {"gain": 0.5}}, "features.gain: found 0.5, expected a whole number"),
        ({"trigger": Trigger("hardware", line="Line1")}, "trigger.line: V4L2 knows none"),
        ({"trigger": Trigger("hardware", exposure_us=6e7)}, "trigger.exposure_us: found 600000, expected"),
    ]
    for settings, expected in wrong:
        with pytest.raises(InputError) as refused:
            set_controls(CameraSettings("/dev/null", **settings), device)
        assert str(refused.value).startswith("/dev/null: ") and expected in str(refused.value)
