"""Engine files, through ``read_manifest`` and ``read_engine``, and what a line makes of a manifest."""

import hashlib
import io
import struct
import zipfile
from pathlib import Path

from calibration.calibration_file import write_calibration
from daemon.capture.drivers import CameraSettings
from daemon.config import Config
from daemon.load import load_products
from engine_runtime.engine import outputs_of
from engine_runtime.engine_file import MANIFEST, read_engine, read_manifest, write_engine
from engine_runtime.manifest import VERSION_1_MAPS, Manifest, Proof
from foundation.errors import InputError
from fuzzing.calibration_file import sound_calibration
from fuzzing.mutation import mutate_bytes, mutate_json
from fuzzing.target import Chance, must_be_one_line
from pictures.frames import Size

_PAYLOAD = bytes(range(64))

SOUND = Manifest(
    format_version=1,
    model="flange",
    runtime="onnxruntime",
    runtime_version="1.20",
    precision="fp32",
    input_size=Size(64, 96),
    map_size=Size(8, 16),
    max_batch=4,
    outputs=outputs_of(VERSION_1_MAPS),
    payload="model.onnx",
    payload_sha256=hashlib.sha256(_PAYLOAD).hexdigest(),
    source_sha256="0" * 64,
    device="some CPU",
    model_metadata={"size": "xs", "map_stride": "4"},
    built_at="2026-01-01T00:00:00+00:00",
    tool_version="0.1.0",
    proof=Proof(
        parity_frames=12,
        largest_score_difference=1e-7,
        batch_rows_equal=True,
        half_precision_share=0,
        latency_ms={1: 4.5, 4: 16.25},
    ),
)
_SIGNATURES = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")
_INTERESTING = (0, 1, 8, 12, 0x7FFF, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 20)


class Target:
    """Every file is an engine whose payload has the SHA-256 it names, or refused in one line."""

    documented = (InputError,)
    longest = 8192
    words = (
        "PK\x01\x02",
        "PK\x03\x04",
        "PK\x05\x06",
        "PK\x06\x06",
        "PK\x06\x07",
        MANIFEST,
        *Manifest.model_fields,
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "line3.engine"
        calibration = folder / "line3.yaml"
        write_calibration(calibration, sound_calibration(SOUND.payload_sha256))
        self._config = Config(
            line="line3",
            engine=self._path,
            calibration=calibration,
            publish="ipc://line3",
            cameras={"top": CameraSettings("x")},
        )

    def seeds(self) -> list[bytes]:
        write_engine(self._path, SOUND, _PAYLOAD)
        small = SOUND.model_copy(update={"model_metadata": {}, "compute_capability": "9.0"})
        files = [self._path.read_bytes()]
        write_engine(self._path, small, _PAYLOAD)
        return [*files, self._path.read_bytes()]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        if chance.random() < 0.5:
            return _rezipped(data, chance)
        return _with_another_field(data, chance) if chance.random() < 0.7 else mutate_bytes(data, chance)

    def run(self, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            manifest = read_manifest(self._path)
            read, payload = read_engine(self._path)
            assert read == manifest
            assert hashlib.sha256(payload).hexdigest() == manifest.payload_sha256
            product = load_products(self._config, self._path)[None]
            assert min(product.geometry.stride) > 0
            # What a lane allocates before the payload is compiled.
            assert product.max_batch * manifest.input_size.height * manifest.input_size.width * 3 <= 1 << 31
        except InputError as error:
            must_be_one_line(error, self._path)
            raise


def _rezipped(data: bytes, chance: Chance) -> bytes:
    """Change the manifest or the entries, and let the checksums of the zip fit again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:
        return mutate_bytes(data, chance)
    if not entries:
        return mutate_bytes(data, chance)
    match chance.randrange(8):
        case 0:
            entries.append(chance.choice(entries))
        case 1:
            del entries[chance.randrange(len(entries))]
        case 2:
            at = chance.randrange(len(entries))
            name = chance.choice(("../x", "/x", "a\nb", "", MANIFEST, "model.onnx", "x" * 300, "é"))
            entries[at] = (name, entries[at][1])
        case _:
            entries[0] = (entries[0][0], mutate_json(entries[0][1], chance))
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", chance.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    ) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return file.getvalue()


def _with_another_field(data: bytes, chance: Chance) -> bytes:
    """Write a telling number into one of the zip's own fields."""
    at = data.find(chance.choice(_SIGNATURES))
    if at < 0:
        return mutate_bytes(data, chance)
    field = at + 4 + 2 * chance.randrange(21)
    number = struct.pack("<I", chance.choice((*_INTERESTING, len(data), chance.randrange(2**32))))
    width = chance.choice((2, 4))
    return data[:field] + number[:width] + data[field + width :]
