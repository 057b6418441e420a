"""Damaged pictures: how many get through as something else than a fault.

    python -m fuzzing.damaged_pictures --inputs 100000 --json docs/benchmarks/damaged_pictures.json

Each input is an intact JPEG, MJPEG or H.264 recording that is damaged in one place, and is read as a camera's
pictures are. What comes of it is one of four:

fault   a picture is told as damaged, or the recording as broken, and all that passes is intact
equal   all that passes has the pixels of an intact picture: a comment was hit, or a whole picture is missing
valid   a picture passes with other pixels, and nothing in it says so
missed  the same, and a slow and strict reader of the format finds what is wrong; it knows baseline JPEG alone

Of valid and missed ones `visible` counts those that a person sees: more than 16 pixels of a picture that
passed differ by more than 8 of 255 grey levels from the intact picture that it is nearest to.
"""

import argparse
import hashlib
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

import av
import cv2
import numpy as np
from tqdm import tqdm

from daemon.capture.drivers import BadPicture
from daemon.capture.drivers.jpeg import decode_jpeg
from daemon.capture.drivers.video_reader import VideoBroken, VideoReader
from fuzzing.strict_jpeg import fault_of
from pictures.frames import Frame

_SIDE: Final = 96
_SEEN_LEVELS, _SEEN_PIXELS = 8, 16
_PICTURES: Final = 12
_KEY_EVERY: Final = 4
_OUTCOMES: Final = ("fault", "equal", "valid", "missed")
Chance = random.Random


class Recording(NamedTuple):
    """An intact input."""

    name: str
    suffix: str
    data: bytes
    units: tuple[bytes, ...]
    """What a network or a disk may lose as a whole: pictures, slices, packets of a transport stream."""


class Counted(NamedTuple):
    """One line of the table."""

    recording: str
    damage: str


def pictures(side: int) -> list[Frame]:
    """Draw parts on a belt, with a sensor's noise: without it a picture is hardly more than its header."""
    drawn = []
    noise, part = np.random.default_rng(1), side / 96
    for index in range(_PICTURES):
        picture = np.full((side, side, 3), 70, np.uint8)
        centre = round((30 + 3 * index) * part), round(48 * part)
        cv2.circle(picture, centre, round(22 * part), (150, 160, 170), -1)
        cv2.circle(picture, centre, round(8 * part), (40, 40, 40), -1)
        place = round(4 * part), round(90 * part)
        cv2.putText(picture, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * part, (230, 230, 230), 1)
        drawn.append(np.clip(picture + noise.normal(0, 5, picture.shape), 0, 255).astype(np.uint8))
    return drawn


def recordings(side: int = _SIDE) -> list[Recording]:
    """Make the intact inputs, of pictures of side × side pixels."""
    drawn = pictures(side)
    jpegs = [_jpeg(picture) for picture in drawn]
    made = [
        Recording("JPEG", "", jpegs[0], ()),
        Recording("JPEG with restart markers", "", _jpeg(drawn[0], cv2.IMWRITE_JPEG_RST_INTERVAL, 3), ()),
        Recording("progressive JPEG", "", _jpeg(drawn[0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1), ()),
        Recording("MJPEG, one after the other", ".mjpeg", b"".join(jpegs), tuple(jpegs)),
        _multipart(jpegs),
    ]
    for entropy, options in (
        ("CABAC", {"tune": "zerolatency"}),
        ("CAVLC", {"profile": "baseline"}),
        ("B", {"bf": "2"}),
    ):
        packets = _h264(drawn, options)
        name = "H.264 with B-pictures" if entropy == "B" else f"H.264, {entropy}"
        raw = b"".join(bytes(packet) for packet in packets)
        made.append(Recording(f"{name}, raw", ".h264", raw, tuple(bytes(packet) for packet in packets)))
        stream = _muxed(packets, "mpegts", side)
        units = tuple(stream[at : at + 188] for at in range(0, len(stream), 188))
        made.append(Recording(f"{name}, transport stream", ".ts", stream, units))
    return made


def _jpeg(picture: Frame, *options: int) -> bytes:
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1]
    return bytes(encoded.tobytes())


def _multipart(jpegs: list[bytes]) -> Recording:
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    data = b"".join(head % len(jpeg) + jpeg + b"\r\n" for jpeg in jpegs)
    return Recording(
        "MJPEG over HTTP", ".bin", data, tuple(data[at : at + 1448] for at in range(0, len(data), 1448))
    )


def _h264(drawn: list[Frame], options: dict[str, str]) -> list[av.Packet]:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = drawn[0].shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"preset": "veryfast", "g": str(_KEY_EVERY), "crf": "20", "threads": "1"} | options
    packets: list[av.Packet] = []
    for index, picture in enumerate(drawn):
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts = index
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _muxed(packets: list[av.Packet], container: str, side: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for packet in packets:
            packet.stream = stream
            packet.time_base = Fraction(1, 25)
            output.mux(packet)
    return file.getvalue()


def _cut(recording: Recording, chance: Chance) -> bytes:
    return recording.data[: chance.randrange(1, len(recording.data))]


def _gap(recording: Recording, chance: Chance) -> bytes:
    at, length = chance.randrange(len(recording.data)), chance.choice((1, 16, 188, 1448))
    return recording.data[:at] + recording.data[at + length :]


def _zeros(recording: Recording, chance: Chance) -> bytes:
    return _over(recording.data, bytes(chance.choice((16, 188, 512))), chance)


def _garbage(recording: Recording, chance: Chance) -> bytes:
    return _over(recording.data, chance.randbytes(chance.choice((4, 16, 188))), chance)


def _flip(recording: Recording, chance: Chance) -> bytes:
    changed, at = bytearray(recording.data), chance.randrange(len(recording.data))
    changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _lost(recording: Recording, chance: Chance) -> bytes:
    at, count = chance.randrange(len(recording.units)), chance.choice((1, 1, 2, 3, 4, 5))
    return b"".join(recording.units[:at] + recording.units[at + count :])


def _over(data: bytes, other: bytes, chance: Chance) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + other[: len(data) - at] + data[at + len(other) :]


DAMAGES: Final[dict[str, Callable[[Recording, Chance], bytes]]] = {
    "cut short": _cut,
    "bytes missing": _gap,
    "packets lost": _lost,
    "zeros": _zeros,
    "other bytes": _garbage,
    "one bit": _flip,
}


def outcome(recording: Recording, damaged: bytes, intact: dict[bytes, Frame], file: Path) -> list[str]:
    """Read a damaged input as a camera's and say what became of it: one of the four, and `visible`."""
    faulty, others = False, list[Frame]()
    for pixels in _read(recording, damaged, file):
        if pixels is None:
            faulty = True
        elif _digest(pixels) not in intact:
            others.append(pixels)
    if not others:
        return ["fault" if faulty else "equal"]
    is_missed = recording.name.startswith("JPEG") and fault_of(damaged) is not None
    is_visible = any(_is_visible(pixels, list(intact.values())) for pixels in others)
    return ["missed" if is_missed else "valid", *(["visible"] if is_visible else [])]


def _is_visible(pixels: Frame, intact: list[Frame]) -> bool:
    return not any(
        pixels.shape == whole.shape
        and (cv2.absdiff(pixels, whole).max(axis=2) > _SEEN_LEVELS).sum() <= _SEEN_PIXELS
        for whole in intact
    )


def _read(recording: Recording, data: bytes, file: Path) -> Iterator[Frame | None]:
    """Give pictures, and None for each that is told as damaged."""
    if not recording.suffix:
        try:
            yield decode_jpeg(data)
        except BadPicture:
            yield None
        return
    path = file.with_suffix(recording.suffix)
    path.write_bytes(data)
    try:
        reader = VideoReader(f"file:{path}")
    except VideoBroken:
        yield None
        return
    try:
        for undecoded in reader:
            try:
                yield undecoded()
            except BadPicture:
                yield None
    except VideoBroken:
        yield None
    finally:
        reader.close()


def _digest(pixels: Frame) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def run(inputs: int, seed: int, side: int = _SIDE) -> dict[Counted, Counter[str]]:
    """Damage recordings, in turns, and count what becomes of them."""
    counts: dict[Counted, Counter[str]] = {}
    made = recordings(side)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        file = Path(folder) / "input"
        whole: dict[str, dict[bytes, Frame]] = {}
        for recording in made:
            read = list(_read(recording, recording.data, file))
            expected = _PICTURES if recording.suffix else 1
            assert len(read) == expected and all(p is not None for p in read), (
                f"{recording.name} is not read whole"
            )
            whole[recording.name] = {_digest(pixels): pixels for pixels in read if pixels is not None}
        pairs = [(r, d) for r in made for d in DAMAGES if d != "packets lost" or r.units]
        for number in tqdm(range(inputs), unit="input", disable=None):
            recording, damage = pairs[number % len(pairs)]
            damaged = DAMAGES[damage](recording, random.Random(f"{seed} {number}"))
            results = outcome(recording, damaged, whole[recording.name], file)
            counts.setdefault(Counted(recording.name, damage), Counter()).update(results)
    return counts


def table(counts: dict[Counted, Counter[str]]) -> str:
    """Write as Markdown what passed with other pixels (visibly), by damage and format, and the sums."""
    families = {recording: _family(recording) for recording, _ in counts}
    columns = list(dict.fromkeys(families.values()))
    lines = [f"| damage | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for damage in DAMAGES:
        cells = []
        for column in columns:
            found = [
                c for key, c in counts.items() if key.damage == damage and families[key.recording] == column
            ]
            counted = sum(found, Counter())
            passed = f"{_passed(counted):,}" + (f" ({counted['visible']:,})" if _passed(counted) else "")
            cells.append(f"{passed} of {_all(counted):,}" if found else "–")
        lines.append(f"| {damage} | {' | '.join(cells)} |")
    whole = sum(counts.values(), Counter())
    sums = ", ".join(f"{whole[name]:,} {name}" for name in _OUTCOMES)
    return "\n".join([*lines, "", f"{_all(whole):,} inputs: {sums}; {whole['visible']:,} visible"])


def _family(recording: str) -> str:
    return "H.264, " + recording.rpartition(", ")[2] if "H.264" in recording else recording


def _all(counted: Counter[str]) -> int:
    return sum(counted[name] for name in _OUTCOMES)


def _passed(counted: Counter[str]) -> int:
    return counted["valid"] + counted["missed"]


def main() -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--side", type=int, default=_SIDE, help="of the pictures (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here")
    options = parser.parse_args()
    counts = run(options.inputs, options.seed, options.side)
    print(table(counts))
    if options.json is not None:
        rows = [key._asdict() | dict(counted) for key, counted in sorted(counts.items())]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
