from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from calibration.calibration_file import (
    Calibration,
    ThresholdChange,
    load_calibration,
    write_calibration,
)
from foundation.errors import InputError
from pictures.frames import Roi, Size
from pictures.tiles import Tiles

ENGINE = "ab" * 32
MAPS = ("local", "global")


def calibration(**changes: object) -> Calibration:
    return Calibration(
        **{
            "format_version": 1,
            "model": "flange",
            "engine_sha256": ENGINE,
            "quantiles": {"local": (0.1, 0.3), "global": (0.01, 0.02)},
            "threshold": 0.25,
            "wanted_false_reject_rate": 0.001,
            "false_reject_rate_interval": (0.0001, 0.004),
            "confidence": 0.9,
            "good_images": 200,
            "good_images_sha256": "cd" * 32,
            "roi": Roi(10, 20, 300, 200),
            "tiles": Tiles(128, 32),
            "tiled_size": Size(200, 300),
            "made_at": "2026-01-01T00:00:00+00:00",
            "tool_version": "0.1.0",
            **changes,
        }
    )


finite = st.floats(-1e30, 1e30)


@given(
    threshold=finite,
    first=st.floats(0, 1),
    roi=st.none() | st.builds(Roi, *[st.integers(1, 10_000)] * 4),
    tiles=st.none() | st.builds(Tiles, st.integers(16, 10_000), st.integers(0, 8)),
    model=st.text(max_size=20),
)
def test_what_was_written_is_loaded(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    threshold: float,
    first: float,
    roi: Roi | None,
    tiles: Tiles | None,
    model: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    made = calibration(
        threshold=threshold,
        quantiles={"local": (first, 1.5), "global": (-first, 1e6)},
        roi=roi,
        tiles=tiles,
        model=model,
    )
    write_calibration(path, made)
    loaded = load_calibration(path, ENGINE, MAPS)
    assert loaded == made
    assert loaded.roi is None or isinstance(loaded.roi, Roi)


def test_quantiles_survive_as_float32(tmp_path: Path) -> None:
    quantiles = np.random.default_rng(0).uniform(0, 1, (2, 2)).cumsum(axis=1).astype(np.float32)
    path = tmp_path / "line3.calibration.yaml"
    write_calibration(path, calibration(quantiles=dict(zip(MAPS, quantiles.tolist(), strict=True))))
    loaded = load_calibration(path, ENGINE, MAPS).quantiles_array()
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, quantiles)


CONTENT = calibration().model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"engine_sha256": "12" * 32}, "was made for another engine: 121212121212… .* here is abababababab…"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted, found 'red'"),
        ({"threshold": float("nan")}, "threshold: Input should be a finite number, found nan"),
        ({"threshold": float("inf")}, "threshold: Input should be a finite number, found inf"),
        ({"threshold": "high"}, "threshold: .* valid number.*, found 'high'"),
        ({"threshold": [1]}, "threshold: .*valid number"),
        (
            {"quantiles": [[0.3, 0.3], [0, 1]]},
            "quantiles of the map local are 0.3 and 0.3; q_b must be larger",
        ),
        ({"quantiles": [[0, 1], [0.3, 0.1]]}, "quantiles of the map global are 0.3 and 0.1"),
        # Larger in float64, equal in the float32 that the engine gets.
        ({"quantiles": [[0, 1], [1.0, 1.000000001]]}, "quantiles of the map global are 1 and 1"),
        ({"quantiles": [[0, 1e300], [0, 1]]}, "quantiles of the map local are 0 and inf"),
        ({"quantiles": [[0, 1]]}, "quantiles: Input should be an object"),
        ({"roi": [1, 2, 3]}, "roi"),
        ({"tiles": {"size": 8, "overlap": 0}}, "tiles: found size 8, expected at least 16 pixels"),
        ({"tiles": {"size": 64, "overlap": 33}}, "tiles: found overlap 33, expected 0 to 32 pixels"),
        ({"tiles": {"size": 64, "step": 3}}, "tiles"),
        ({"tiled_size": [200]}, "tiled_size"),
        ({"tiles": "64,8"}, "tiles: .*found '64,8'"),
        ({"format_version": 2}, "format_version is 2; this inspectd reads 1"),
        ({"format_version": {"a": 1}}, "format_version is keys and values; this"),
        ({"confidence": 1.5}, "confidence: Input should be less than or equal to 1, found 1.5"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    path = tmp_path / "line3.calibration.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(InputError, match=expected) as raised:
        load_calibration(path, ENGINE, MAPS)
    assert str(raised.value).startswith(f"{path}: ")
    assert len(str(raised.value).splitlines()) == 1


def test_every_key_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "line3.calibration.yaml"
    since_later = {
        "tiles",
        "tiled_size",
        "camera_picture",
        "changed",
        "score_tolerance",
        "drift",
        "locate",
        "mask",
    }
    for key in CONTENT.keys() - {"format_version"} - since_later:
        path.write_text(yaml.safe_dump({name: value for name, value in CONTENT.items() if name != key}))
        with pytest.raises(InputError, match=f"{key}: Field required"):
            load_calibration(path, ENGINE, MAPS)


def test_who_changed_the_threshold_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "line3.calibration.yaml"
    write_calibration(path, calibration())
    assert "changed" not in path.read_text()  # nobody did: as older versions wrote and read it
    said = ThresholdChange(by="anna", reason="new lamp: brighter", at="2026-11-30T01:02:03+00:00", before=0.5)
    changed = calibration().model_copy(update={"changed": said})
    write_calibration(path, changed)
    assert load_calibration(path, ENGINE, MAPS) == changed


BILLION_LAUGHS = "a0: &a0 [lol]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a file written by calibrate"),
        ("just words", "expected a file written by calibrate"),
        ("- 1\n- 2", "expected a file written by calibrate"),
        ("threshold: [1, 2", "not YAML"),
        ("a: !!python/object/apply:os.system [true]", "not YAML"),
        ("a: !!float x", "1: a: found .x., expected a number"),
        ("format_version: 1\ngood_images: 0500", "good_images: found 0500, which YAML may read as 320"),
        ("\x00", "not YAML"),
        ("[" * 5000, "not YAML"),
        (f"format_version: 1\n{BILLION_LAUGHS}", "aliases that expand"),
        ("format_version: 1\nquantiles: &q [*q, *q]", "aliases that expand"),
        ("# " + "x" * (1 << 20), "larger than 100000 bytes"),
    ],
)
def test_what_is_no_calibration(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "line3.calibration.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected) as raised:
        load_calibration(path, ENGINE, MAPS)
    assert len(str(raised.value)) < 600


def test_files_made_before_there_were_tiles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "line3.calibration.yaml"
    older = {name: value for name, value in CONTENT.items() if name not in {"tiles", "tiled_size"}}
    path.write_text(yaml.safe_dump(older))
    loaded = load_calibration(path, ENGINE, MAPS)
    assert (loaded.tiles, loaded.tiled_size) == (None, None)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read: No such file"):
        load_calibration(tmp_path / "gone.yaml", ENGINE, MAPS)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_calibration(tmp_path, ENGINE, MAPS)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=r"binary\.yaml: not YAML"):
        load_calibration(tmp_path / "binary.yaml", ENGINE, MAPS)


@given(
    data=st.binary(max_size=60) | st.text(alphabet="ab:- []{}&*!\"'\n|>?0.1e", max_size=40).map(str.encode)
)
def test_any_bytes_are_refused_in_one_way(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError):
        load_calibration(path, ENGINE, MAPS)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "byte.yaml"
    write_calibration(path, calibration())
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        assert load_calibration(path, ENGINE, MAPS).engine_sha256 == ENGINE
    except InputError as error:
        assert len(str(error).splitlines()) == 1
