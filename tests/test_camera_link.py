"""What crosses between the daemon and a camera process, and the count that both share."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.capture.counter import CaptureCounter, read_counter
from daemon.capture.link import (
    LONGEST_TEXT,
    Arrival,
    Ended,
    Failed,
    Fire,
    Free,
    Heartbeat,
    MalformedPacket,
    Message,
    Opened,
    Settings,
    Stop,
    Watch,
    decode,
    encode,
    sendable,
)
from daemon.capture.slots import FrameSlots
from engine_runtime import page_lock
from engine_runtime.cuda_driver import DriverFailed, gpu
from foundation.errors import InputError
from pictures.frames import Roi, Size

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_TEXT)
counts = st.integers(0, 2**64 - 1)
sides = st.integers(1, 2**32 - 1)


@st.composite
def arrivals(draw: Any) -> Arrival:
    slot = draw(st.none() | st.integers(0, 2**31 - 1))
    region = None if slot is None else Roi(draw(sides), draw(sides), draw(sides), draw(sides))
    part, error = draw(st.none() | texts), draw(st.none() | texts)
    number = st.floats(allow_nan=False, allow_infinity=False)
    placed = None if slot is None else draw(st.none() | st.tuples(*[number] * 6))
    lost = slot is not None and draw(st.booleans())
    return Arrival(draw(counts), slot, draw(counts), part, region, error, placed, lost)


messages = st.one_of(
    arrivals(),
    st.builds(Free, st.lists(st.integers(0, 2**32 - 1), max_size=50).map(tuple)),
    st.builds(Opened, st.booleans(), st.none() | st.builds(Size, sides, sides)),
    st.builds(Failed, texts.filter(bool), st.none() | st.binary(min_size=16, max_size=16)),
    st.builds(Fire, st.integers(1, 2**32 - 1), counts, st.none() | texts),
    st.builds(
        Watch,
        *[st.integers(0, 2**53 - 1)] * 6,
        st.none() | st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
        st.none() | texts,
    ),
    st.sampled_from([Heartbeat(), Ended(), Stop()]),
)


@given(messages)
def test_every_message_is_read_as_it_was_written(message: Message) -> None:
    read = decode(encode(message))
    assert read == message
    assert type(read) is type(message)


def test_settings_are_read_as_they_were_written() -> None:
    told = Settings({"source": "/dev/video0", "roi": [1, 2, 3, 4]}, Size(64, 32), 5, [0, 4], 7, b"\0" * 16)
    assert decode(encode(told)) == told


@given(
    st.binary(max_size=300)
    | st.builds(
        bytes.__add__, st.sampled_from([b"F", b"O", b"X", b"R", b"C", b"T", b"W{"]), st.binary(max_size=120)
    )
)
def test_any_bytes_are_a_message_or_malformed(packet: bytes) -> None:
    try:
        message = decode(packet)
    except MalformedPacket:
        return
    if not isinstance(message, Settings):
        assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_message_cut_short_is_never_another_frame(message: Message, data: st.DataObject) -> None:
    packet = encode(message)
    cut = packet[: data.draw(st.integers(0, len(packet) - 1))]
    with contextlib.suppress(MalformedPacket):
        assert not isinstance(decode(cut), Arrival)


@given(st.text(max_size=2000))
def test_any_text_can_be_made_sendable(text: str) -> None:
    message = Failed("why: " + sendable(text)[:900])
    assert decode(encode(message)) == message


def test_a_counter_outlives_the_process_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "line3.captured"
    counter = CaptureCounter.create(path, "0123abcd")
    assert read_counter(path) == ("0123abcd", 0)
    code = (
        "import os, signal, sys\n"
        "from daemon.capture.counter import CaptureCounter\n"
        "CaptureCounter(int(sys.argv[1])).captured = 2**40\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(counter.descriptor)], pass_fds=[counter.descriptor], check=False
    )
    assert counter.captured == 2**40
    counter.close()
    assert read_counter(path) == ("0123abcd", 2**40)
    CaptureCounter.create(path, "ff").close()
    assert read_counter(path) == ("ff", 0)


def test_a_counter_without_a_file_counts_in_memory() -> None:
    counter = CaptureCounter.create(None, "aa")
    counter.captured = 5
    assert counter.captured == 5
    counter.close()


@given(st.binary(max_size=120))
def test_any_file_is_a_counter_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign"
    path.write_bytes(content)
    assert read_counter(path) is None


def test_a_torn_damaged_or_missing_counter_is_none(tmp_path: Path) -> None:
    path = tmp_path / "captured"
    CaptureCounter.create(path, "aa").close()
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        assert read_counter(path) is None
    for at in range(len(whole) - 8):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_counter(path) is None
    assert read_counter(tmp_path / "nothing") is None
    assert read_counter(tmp_path) is None


def test_a_counter_cut_short_by_a_mad_process_harms_nobody(tmp_path: Path) -> None:
    counter = CaptureCounter.create(tmp_path / "captured", "aa")
    os.truncate(tmp_path / "captured", 0)
    assert counter.captured == 0
    counter.close()


def test_a_counter_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="captured: cannot be written"):
        CaptureCounter.create(tmp_path / "nowhere/captured", "aa")


def test_nobody_can_take_the_memory_of_the_slots_away() -> None:
    slots = FrameSlots.create(2, (64, 64, 3))
    with pytest.raises(PermissionError):
        os.ftruncate(slots.descriptor, 0)
    slots[1][...] = 7
    assert slots[1].min() == 7
    slots.close()


def test_slots_stay_locked_for_a_gpu_until_their_last_view_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(page_lock, "primary_context", contextlib.nullcontext)
    monkeypatch.setattr(page_lock, "call", lambda function, *_: asked.append(function))
    slots = FrameSlots.create(2, (64, 64, 3))
    slots.page_lock()
    held = slots[1]  # as a lane holds it when the line changes over
    slots.close()
    del slots
    assert asked == ["cuMemHostRegister_v2"]
    held[...] = 7
    del held
    assert asked == ["cuMemHostRegister_v2", "cuMemHostUnregister"]


def test_without_a_gpu_nothing_is_locked() -> None:
    if gpu() is not None:
        pytest.skip("there is an NVIDIA GPU")
    slots = FrameSlots.create(2, (64, 64, 3))
    with pytest.raises(DriverFailed, match="there is no NVIDIA driver"):
        slots.page_lock()
    slots.close()


@pytest.mark.gpu
def test_slots_are_locked_for_a_gpu() -> None:
    if gpu() is None:
        pytest.skip("no NVIDIA GPU")
    for _ in range(3):  # what is not given back cannot be locked again at the same place
        slots = FrameSlots.create(2, (64, 64, 3))
        slots.page_lock()
        slots.close()
