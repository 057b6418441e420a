import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from engine_graphs import OUTPUTS, UNCALIBRATED, little_model, save

import engine_build.build
from engine_build.choose import Candidate
from engine_build.cli import main
from engine_runtime.engine_file import read_engine, read_manifest, write_engine
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from pictures.frames import Frame


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(little_model(64, 96), tmp_path_factory.mktemp("model") / "little.onnx")


def built(model: Path, target: Path, *options: str) -> Manifest:
    assert main([str(model), "-o", str(target), "--max-batch", "2", *options]) == 0
    return read_manifest(target)


def test_the_fastest_of_what_was_measured_is_chosen(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = built(model, tmp_path / "little.engine", "--threads", "1")
    assert {row.runtime for row in manifest.measured} == {"openvino", "onnxruntime"}
    assert {(row.threads, row.batch, row.precision) for row in manifest.measured} == {(1, 1, "fp32")}
    [chosen] = [row for row in manifest.measured if row.chosen]
    assert (chosen.runtime, chosen.winograd) == (manifest.runtime, len(manifest.winograd))
    fastest = min(row.fastest_ms for row in manifest.measured)
    # What is not rewritten is preferred where it is nearly as fast.
    assert chosen.fastest_ms <= fastest * 1.04 + 0.001
    assert all(row.fastest_ms <= row.latency_ms for row in manifest.measured)
    shown = capsys.readouterr().out
    assert len(re.findall(r"^  (?:openvino|onnxruntime)", shown, re.M)) == len(manifest.measured)
    assert shown.count("chosen") == 1
    open_engine(tmp_path / "little.engine").close()


def test_fast_measures_nothing_and_keeps_the_graph(model: Path, tmp_path: Path) -> None:
    manifest = built(model, tmp_path / "a.engine", "--fast")
    assert (manifest.runtime, manifest.measured, manifest.winograd) == ("openvino", (), {})
    _, payload = read_engine(tmp_path / "a.engine")
    assert onnx.load_model_from_string(payload) == onnx.load(model)
    again = built(model, tmp_path / "b.engine", "--fast", "--runtime", "onnxruntime")
    assert again.runtime == "onnxruntime"
    assert again.payload_sha256 == manifest.payload_sha256


def test_a_given_runtime_is_the_only_one_measured(model: Path, tmp_path: Path) -> None:
    manifest = built(model, tmp_path / "little.engine", "--runtime", "onnxruntime")
    assert manifest.runtime == "onnxruntime"
    assert {row.runtime for row in manifest.measured} == {"onnxruntime"}


def test_the_best_graph_is_also_tried_with_half_of_the_cores(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_build.build, "usable_cores", lambda: 4)
    manifest = built(model, tmp_path / "little.engine", "--runtime", "openvino")
    assert {row.threads for row in manifest.measured} == {2, 4}
    [chosen] = [row for row in manifest.measured if row.chosen]
    # This graph is so small that either may win.
    assert manifest.threads == (None if chosen.threads == 4 else 2)


def test_an_engine_takes_the_threads_with_which_it_was_fastest(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "little.engine"
    built(model, path, "--fast")
    manifest, payload = read_engine(path)
    used = {}
    for wanted in (1, 1000):
        write_engine(path, manifest.model_copy(update={"threads": wanted}), payload)
        engine = open_engine(path)
        used[wanted] = engine._models[0].get_property("INFERENCE_NUM_THREADS")  # type: ignore[attr-defined]
        engine.close()
    assert used == {1: 1, 1000: len(os.sched_getaffinity(0))}
    engine = open_engine(path, threads=1)
    assert engine._models[0].get_property("INFERENCE_NUM_THREADS") == 1  # type: ignore[attr-defined]


def test_throughput_is_measured_with_full_batches(model: Path, tmp_path: Path) -> None:
    manifest = built(
        model, tmp_path / "little.engine", "--optimise", "throughput", "--runtime", "onnxruntime"
    )
    assert {row.batch for row in manifest.measured} == {2}


@pytest.mark.slow
def test_wide_convolutions_are_rewritten(tmp_path: Path) -> None:
    # So wide that rewritten it takes 0.6 of the time: other tests on the same cores do not turn that round.
    wide = save(little_model(64, 64, channels=128), tmp_path / "wide.onnx")
    photo = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "parity").mkdir()
    cv2.imwrite(str(tmp_path / "parity" / "photo.png"), photo)
    on_one_thread = (
        "--runtime",
        "onnxruntime",
        "--threads",
        "1",
        "--parity-images",
        str(tmp_path / "parity"),
    )
    manifest = built(wide, tmp_path / "wide.engine", *on_one_thread, "--time-limit", "3")
    assert manifest.winograd
    assert manifest.proof.largest_score_difference <= 1e-4
    _, payload = read_engine(tmp_path / "wide.engine")
    names = {name for node in onnx.load_model_from_string(payload).graph.node for name in node.output}
    assert manifest.winograd.keys() <= names
    by_rewrites = {row.winograd: row.fastest_ms for row in manifest.measured}
    assert by_rewrites[len(manifest.winograd)] < by_rewrites[0]
    # And it judges as the graph does.
    built(wide, tmp_path / "plain.engine", "--runtime", "onnxruntime", "--fast")
    frames: list[Frame] = list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    engines = [open_engine(tmp_path / f"{name}.engine", threads=1) for name in ("wide", "plain")]
    found, expected = (engine.infer(frames, UNCALIBRATED, OUTPUTS) for engine in engines)
    for name in OUTPUTS:
        assert np.abs(found[name] - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max()


def test_a_short_time_still_gives_an_engine(tmp_path: Path) -> None:
    large = save(little_model(256, 256, channels=16), tmp_path / "large.onnx")
    manifest = built(large, tmp_path / "large.engine", "--time-limit", "1")
    assert sum(row.chosen for row in manifest.measured) == 1
    assert manifest.proof.batch_rows_equal


def test_what_fails_the_proof_is_passed_over(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = little_model(64, 96, seed=1).SerializeToString()
    measure = engine_build.build.candidates

    def wrong_first(*arguments: Any) -> list[Candidate]:
        return [Candidate("onnxruntime", wrong, {"conv": 6}, (1e-5,)), *measure(*arguments)]

    monkeypatch.setattr(engine_build.build, "candidates", wrong_first)
    manifest = built(model, tmp_path / "little.engine", "--runtime", "onnxruntime")
    assert "conv" not in manifest.winograd
    assert [row.chosen for row in manifest.measured].index(True) == 1
    _, payload = read_engine(tmp_path / "little.engine")
    assert payload != wrong
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "passed over: onnxruntime, 1 rewritten: parity failed: in a batch of 1, score differs"
    )


def test_engine_files_of_before_are_still_read(model: Path, tmp_path: Path) -> None:
    manifest = built(model, tmp_path / "little.engine", "--fast")
    content = json.loads(manifest.model_dump_json())
    del content["measured"], content["winograd"], content["threads"]
    del content["library"], content["parity_sha256"], content["proof"]["graph_score_difference"]
    assert Manifest.model_validate(content) == manifest


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--time-limit", "0"], "found '0', expected a number from 1 to 86400"),
        (["--time-limit", "nan"], "found 'nan', expected a number"),
        (["--time-limit", "soon"], "found 'soon', expected a number"),
        (["--fast", "--time-limit", "5"], "not allowed with"),
        (["--optimise", "memory"], "invalid choice: 'memory'"),
        (["--threads", "0"], "found '0', expected a whole number from 1 to 1024"),
    ],
)
def test_options_that_cannot_be_met(
    model: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(model), *options])
    assert raised.value.code == 2
    assert expected in capsys.readouterr().err
