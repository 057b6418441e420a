import json
import zipfile
from pathlib import Path

import pytest
from engine_graphs import OUTPUTS
from hypothesis import given
from hypothesis import strategies as st

from engine_runtime.cuda_driver import gpu
from engine_runtime.engine_file import read_engine, read_manifest, write_engine
from engine_runtime.manifest import Manifest, Proof
from engine_runtime.open import open_engine
from foundation.errors import EngineRefused
from pictures.frames import Size

PAYLOAD = bytes(range(256)) * 2


def manifest(**changes: object) -> Manifest:
    import hashlib

    return Manifest(
        **{
            "format_version": 1,
            "model": "flange",
            "runtime": "openvino",
            "runtime_version": "2026.4",
            "precision": "fp32",
            "input_size": Size(64, 96),
            "map_size": Size(8, 16),
            "max_batch": 4,
            "outputs": OUTPUTS,
            "payload": "model.onnx",
            "payload_sha256": hashlib.sha256(PAYLOAD).hexdigest(),
            "source_sha256": "0" * 64,
            "device": "some CPU",
            "model_metadata": {"size": "xs"},
            "built_at": "2026-01-01T00:00:00+00:00",
            "tool_version": "0.1.0",
            "proof": Proof(
                parity_frames=12,
                largest_score_difference=1e-7,
                batch_rows_equal=True,
                half_precision_share=0,
                latency_ms={1: 4.5, 4: 16.25},
            ),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "flange.engine"
    write_engine(path, manifest(), PAYLOAD)
    return path


def test_what_was_written_is_read(written: Path) -> None:
    assert read_engine(written) == (manifest(), PAYLOAD)
    assert read_manifest(written) == manifest()


def test_the_file_is_a_stored_zip_with_the_manifest_first(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        assert archive.namelist() == ["manifest.json", "model.onnx"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def test_writing_twice_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.engine"
    write_engine(again, manifest(), PAYLOAD)
    assert again.read_bytes() == written.read_bytes()


def refused_or_equal(path: Path) -> None:
    try:
        found = read_engine(path)
    except EngineRefused as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert found == (manifest(), PAYLOAD)


@given(data=st.data())
def test_any_changed_byte_is_refused_or_of_no_consequence(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.getbasetemp() / "changed.engine"
    damaged.write_bytes(content)
    refused_or_equal(damaged)


@given(kept=st.integers(0, 10_000), appended=st.binary(max_size=40))
def test_any_truncation_is_refused(
    written: Path, tmp_path_factory: pytest.TempPathFactory, kept: int, appended: bytes
) -> None:
    content = written.read_bytes()
    damaged = tmp_path_factory.getbasetemp() / "truncated.engine"
    damaged.write_bytes(content[: min(kept, len(content) - 1)] + appended)
    refused_or_equal(damaged)


def test_every_single_byte(written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    damaged = tmp_path / "damaged.engine"
    for position in range(len(content)):
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        refused_or_equal(damaged)


def test_an_altered_payload_is_refused_though_the_zip_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "altered.engine"
    write_engine(path, manifest(), PAYLOAD[::-1])
    with pytest.raises(EngineRefused, match=r"altered\.engine: the payload was altered"):
        open_engine(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    key=st.sampled_from(["payload", "max_batch", "input_size", "proof", "runtime", "outputs", "other"]),
    value=json_values,
)
def test_any_value_in_the_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "manifest.engine"
    content = {**json.loads(manifest().model_dump_json()), key: value}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(content))
        archive.writestr("model.onnx", PAYLOAD)
    try:
        read_engine(path)
    except EngineRefused as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an engine file"),
        (b"PK\x03\x04 and then nothing", "not an engine file"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_engine_file(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "line3.engine"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineRefused, match=f"line3.engine: {expected}"):
        read_manifest(path)


def zipped(path: Path, **entries: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name.replace("_json", ".json"), text)
    return path


def test_manifests_that_are_refused(tmp_path: Path) -> None:
    good = json.loads(manifest().model_dump_json())
    cases = {
        "holds no 'manifest.json'; found other": zipped(tmp_path / "a", other="x"),
        "manifest.json is not JSON": zipped(tmp_path / "b", manifest_json="{"),
        "manifest.json is not JSON: maximum": zipped(tmp_path / "c", manifest_json="[" * 100_000),
        "format_version is 2; this inspectd reads 1": zipped(
            tmp_path / "d", manifest_json=json.dumps({**good, "format_version": 2})
        ),
        "max_batch: Input should be greater than 0, found 0": zipped(
            tmp_path / "e", manifest_json=json.dumps({**good, "max_batch": 0})
        ),
        "colour: Extra inputs are not permitted, found 'red'": zipped(
            tmp_path / "f", manifest_json=json.dumps({**good, "colour": "red"})
        ),
        "entry 'manifest.json' claims": zipped(tmp_path / "g", manifest_json=" " * (2 << 20)),
    }
    for expected, path in cases.items():
        with pytest.raises(EngineRefused, match=expected):
            read_manifest(path)


def test_a_compressed_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.engine"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", manifest().model_dump_json())
    with pytest.raises(EngineRefused, match="is compressed; engine files are stored"):
        read_manifest(path)


@pytest.mark.skipif(gpu() is not None, reason="there is an NVIDIA GPU")
def test_an_engine_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "gpu.engine"
    write_engine(path, manifest(runtime="tensorrt"), PAYLOAD)
    with pytest.raises(
        EngineRefused,
        match=r"gpu\.engine: (needs an NVIDIA GPU: there is no|runtime tensorrt is not installed here)",
    ):
        open_engine(path)


def test_a_payload_that_the_runtime_does_not_accept(tmp_path: Path) -> None:
    path = tmp_path / "garbage.engine"
    for runtime in ("openvino", "onnxruntime"):
        write_engine(path, manifest(runtime=runtime), PAYLOAD)
        with pytest.raises(
            EngineRefused, match=rf"garbage\.engine: {runtime} \S+ does not accept it: "
        ) as raised:
            open_engine(path)
        assert "\n" not in str(raised.value)
