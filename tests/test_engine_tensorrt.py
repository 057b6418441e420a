"""TensorRT engines: built for real where TensorRT-RTX is installed, run only where there is an NVIDIA GPU."""

import contextlib
import fcntl
import hashlib
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from engine_graphs import OUTPUTS, UNCALIBRATED, little_model, save
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_build import tensorrt_plan
from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_build.half import halved
from engine_build.parity_frames import generated_parity_frames
from engine_build.reference import run_reference
from engine_build.tensorrt_plan import Profile, build_plan
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine import FRAMES, QUANTILES, SCORE
from engine_runtime.engine_file import pack_parity, read_engine, read_manifest, read_parity, write_engine
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from engine_runtime.proof import Reference
from engine_runtime.tensorrt_library import is_installed, library
from foundation.errors import EngineRefused, InputError
from pictures.frames import Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def installed() -> None:
    if not is_installed():
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")


@pytest.fixture
def device() -> None:
    if gpu() is None:
        pytest.skip("no NVIDIA GPU")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(little_model(64, 96), tmp_path_factory.mktemp("model") / "little.onnx")


@pytest.fixture(scope="module")
def engine(model: Path, installed: None) -> Path:
    target = model.with_name("line3.engine")
    assert build_engine([str(model), "--runtime", "tensorrt", "-o", str(target)]) == 0
    return target


def scores(content: bytes, frames: list[Any], quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    runs = [session.run([SCORE], {FRAMES: frame[None], QUANTILES: quantiles})[0] for frame in frames]
    return np.concatenate(runs)


def test_convolutions_go_to_half_and_the_rest_stays(model: Path) -> None:
    graph = read_graph(model)
    half = onnx.load_model_from_string(halved(graph))
    onnx.checker.check_model(half, full_check=True)
    types = {weight.name: weight.data_type for weight in half.graph.initializer}
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert all(types[name] == TensorProto.FLOAT16 for name in node.input[1:])
        elif node.op_type in {"Sub", "Mul", "Div", "Add"}:
            assert all(types.get(name) != TensorProto.FLOAT16 for name in node.input)
    assert {value.name: value.type.tensor_type.elem_type for value in half.graph.output} == dict.fromkeys(
        OUTPUTS, TensorProto.FLOAT
    )
    frames = generated_parity_frames(graph.input_size)
    reference = run_reference(graph, frames, lambda: None)
    found = scores(half.SerializeToString(), frames, reference.quantiles)
    assert 0 < np.abs(found - reference.outputs[SCORE]).max() < 0.01 * np.abs(reference.outputs[SCORE]).max()


def test_a_weight_that_half_cannot_hold(model: Path) -> None:
    changed = onnx.load(model)
    weight = next(item for item in changed.graph.initializer if len(item.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    graph = read_graph(model)
    with pytest.raises(
        InputError, match=rf"weight '{weight.name}' reaches .*at most 65504.*--precision fp32"
    ):
        halved(replace(graph, content=changed.SerializeToString()))


def test_an_engine_says_what_was_proven_and_what_was_not(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(engine)
    assert (manifest.runtime, manifest.precision, manifest.payload) == ("tensorrt", "fp16", "engine.plan")
    assert manifest.library == library()[0]
    assert manifest.proof.half_precision_share == 1
    assert manifest.proof.graph_score_difference is not None
    assert 0 < manifest.proof.graph_score_difference < 0.02
    if gpu() is None:
        assert not manifest.proof.complete
        frames, reference = read_parity(engine, manifest)
        assert len(frames) == manifest.proof.parity_frames
        assert reference.outputs[SCORE].shape == (len(frames),)
        with pytest.raises(EngineRefused, match=r"line3\.engine: needs an NVIDIA GPU: there is no"):
            open_engine(engine)


def test_what_is_printed(model: Path, tmp_path: Path, installed: None) -> None:
    command = [BIN / "build-engine", model, "--runtime", "tensorrt", "-o", tmp_path / "line3.engine"]
    shown = subprocess.run([*command, "--max-batch", "4"], capture_output=True, text=True, check=True).stdout
    assert "convolutions in half      100%" in shown
    assert "largest batch             4" in shown
    if gpu() is None:
        assert "not run: there is none here; inspectd runs it at its first start" in shown


def test_a_terminal_sees_how_far_a_build_is(model: Path, tmp_path: Path, installed: None) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # bars want columns
    command = [BIN / "build-engine", model, "--runtime", "tensorrt", "-o", tmp_path / "line3.engine"]
    build = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while read := os.read(ours, 65536):
            shown += read
    os.close(ours)
    assert build.wait() == 0
    for phase in ("reference", "comparing", "Building engine"):
        assert re.search(rf"{phase}: +\d+%", shown.decode()), phase


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timings_are_kept_and_what_cannot_be_read_is_written_over(
    model: Path, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As full TensorRT does it; TensorRT-RTX has the calls, and nothing to put into the file."""
    name, trt = library()
    monkeypatch.setattr(tensorrt_plan, "library", lambda: ("tensorrt", trt))
    timings = tmp_path / "timings"

    def kept() -> bytes:
        graph = read_graph(model)
        build_plan(halved(graph), graph.input_size, Profile(1, 2), workspace_mb=None, timings=timings)
        return timings.read_bytes()

    first = kept()
    assert first
    if name == "tensorrt_rtx":
        assert kept() == first
    for damaged in (b"of another version", first[:-1]):
        timings.write_bytes(damaged)
        assert len(kept()) >= len(first)


@pytest.mark.gpu
def test_timings_are_kept_beside_the_engines(device: None, engine: Path) -> None:
    if library()[0] != "tensorrt":
        pytest.skip("TensorRT-RTX times nothing when it builds")
    timings = engine.with_name(".tensorrt-timings")
    timings.write_bytes(b"of another version")
    again = engine.with_name("again.engine")
    model = engine.with_name("little.onnx")
    assert build_engine([str(model), "--runtime", "tensorrt", "-o", str(again)]) == 0
    assert timings.read_bytes() != b"of another version"


@pytest.mark.parametrize("damage", ["truncated", "one byte"])
def test_a_plan_that_was_altered_is_refused(engine: Path, tmp_path: Path, damage: str) -> None:
    manifest, plan = read_engine(engine)
    altered = plan[:-1] if damage == "truncated" else plan[:999] + bytes([plan[999] ^ 1]) + plan[1000:]
    path = tmp_path / "altered.engine"
    write_engine(path, manifest, altered)
    with pytest.raises(EngineRefused, match="the payload was altered"):
        open_engine(path)


def test_an_operator_that_tensorrt_does_not_have(installed: None, tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Unique", ["frames"], ["score"], name="odd one")],
            "graph",
            [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["N", 8, 8, 3])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["M"])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    with pytest.raises(InputError, match=r"does not take the graph: node odd one, Unique: "):
        build_plan(
            model.SerializeToString(), Size(8, 8), Profile(1, 1), workspace_mb=None, timings=tmp_path / "t"
        )
    assert not list(tmp_path.iterdir())


def test_too_little_memory_between_the_layers(
    model: Path, installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--runtime", "tensorrt", "-o", str(tmp_path / "no.engine"), "--workspace-mb", "1"]
    assert build_engine([str(model), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--workspace-mb 1: too little for batches of 16; give more, or a smaller --max-batch" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        ("int8", "--precision int8: needs images of good parts to measure ranges on: --good DIR"),
        ("bf16", "--precision bf16: TensorRT on a GPU computes in fp16, fp32, int8"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    model: Path, installed: None, capsys: pytest.CaptureFixture[str], precision: str, said: str
) -> None:
    target = model.with_name("no.engine")
    options = ["--runtime", "tensorrt", "-o", str(target), "--precision", precision]
    assert build_engine([str(model), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert not target.exists()


def test_without_tensorrt_one_line_says_how_to_get_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)
    assert build_engine([str(model), "--runtime", "tensorrt", "-o", str(tmp_path / "no.engine")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "runtime tensorrt is not installed here: pip install 'inspectd[tensorrt-rtx]'" in line


# What an engine's proof lacks is run where it is first opened; the way there is the same for every runtime.


@pytest.fixture
def unproven(model: Path, tmp_path: Path) -> tuple[Path, Manifest, bytes, Reference]:
    """An engine for the CPU whose proof says that it was not run."""
    path = tmp_path / "unproven.engine"
    assert build_engine([str(model), "--fast", "--max-batch", "2", "-o", str(path)]) == 0
    manifest, payload = read_engine(path)
    graph = read_graph(model)
    frames = generated_parity_frames(graph.input_size)
    reference = run_reference(graph, frames, lambda: None)
    not_run = {"largest_score_difference": None, "batch_rows_equal": None, "latency_ms": {}}
    proof = manifest.proof.model_copy(update=not_run)
    return path, manifest.model_copy(update={"proof": proof}), payload, reference


def tried(path: Path, manifest: Manifest, payload: bytes, reference: Reference) -> tuple[int, str]:
    parity = pack_parity(generated_parity_frames(manifest.input_size), reference)
    manifest = manifest.model_copy(update={"parity_sha256": hashlib.sha256(parity).hexdigest()})
    write_engine(path, manifest, payload, parity)
    command = [sys.executable, "-m", "engine_runtime.trial", path]
    trial = subprocess.run(command, capture_output=True, text=True, check=False)
    return trial.returncode, trial.stderr.strip()


def test_a_proof_that_was_not_run_is_run_at_the_first_start(
    unproven: tuple[Path, Manifest, bytes, Reference],
) -> None:
    assert tried(*unproven) == (0, "")


def test_a_proof_that_fails_at_the_first_start_refuses_the_engine(
    unproven: tuple[Path, Manifest, bytes, Reference],
) -> None:
    path, manifest, payload, reference = unproven
    # Off by more than FP16 may be, too: where there is a GPU, the engine is one in half.
    wrong = Reference(
        reference.quantiles, reference.outputs | {SCORE: reference.outputs[SCORE] * np.float32(1.1)}
    )
    code, said = tried(path, manifest, payload, wrong)
    assert code == 2
    assert "its proof was not run where it was built, and fails here: parity failed" in said
    assert len(said.splitlines()) == 1


def test_parity_frames_that_were_altered(unproven: tuple[Path, Manifest, bytes, Reference]) -> None:
    path, manifest, payload, reference = unproven
    parity = pack_parity(generated_parity_frames(manifest.input_size), reference)
    write_engine(path, manifest.model_copy(update={"parity_sha256": "0" * 64}), payload, parity)
    with pytest.raises(EngineRefused, match=r"parity\.npz was altered"):
        read_parity(path, manifest)
    write_engine(path, manifest, payload)
    with pytest.raises(EngineRefused, match=r"holds no 'parity\.npz'"):
        read_parity(path, manifest)


# Whole models.


def exported(folder: Path, size: Any) -> Path:
    import torch

    from models.efficientad.checkpoint import Run
    from models.efficientad.export import export
    from models.efficientad.model import EfficientAd

    torch.manual_seed(5)
    model = EfficientAd(size, Size(256, 256)).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    path = folder / f"{size}.onnx"
    export(path, Run(size, Size(256, 256), None, 1, 1, 0, "0" * 64, "0" * 64, None, "0.1.0"), model)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("size", ["xs", "s", "m"])
def test_all_sizes_are_built_in_half(installed: None, tmp_path: Path, size: str) -> None:
    graph = read_graph(exported(tmp_path, size))
    plan = build_plan(
        halved(graph), graph.input_size, Profile(1, 16), workspace_mb=2048, timings=tmp_path / "timings"
    )
    assert plan.half_precision_share >= 0.95
    assert len(plan.content) < 1.5 * len(graph.content)


@pytest.mark.slow
def test_half_precision_changes_no_verdict(tmp_path: Path, shared_data: Path) -> None:
    """FP16 and FP32 graph of a trained model on real parts, with the calibrated threshold."""

    def run(*words: object) -> None:
        subprocess.run([BIN / str(words[0]), *map(str, words[1:])], check=True, capture_output=True)

    bottle = shared_data / "bottle"
    small = ("--steps", 30, "--image-size", 128)
    run("efficientad", "train", "--data", bottle / "train/good", "--out", tmp_path / "b.pt", *small)
    run("efficientad", "export", tmp_path / "b.pt", "-o", tmp_path / "b.onnx")
    run("build-engine", tmp_path / "b.onnx", "--fast", "--max-batch", 1)
    run("calibrate", tmp_path / "b.engine", "--good", bottle / "train/good", "--false-reject-rate", 0.05)
    calibration = yaml.safe_load((tmp_path / "b.calibration.yaml").read_text())
    quantiles, threshold = (
        np.array(list(calibration["quantiles"].values()), np.float32),
        calibration["threshold"],
    )
    graph = read_graph(tmp_path / "b.onnx")
    frames = [fit(read_image(path), graph.input_size) for path in images_in(bottle / "test")]
    full, half = scores(graph.content, frames, quantiles), scores(halved(graph), frames, quantiles)
    assert np.abs(half - full).max() <= 0.005 * threshold
    np.testing.assert_array_equal(half > threshold, full > threshold)


@pytest.mark.gpu
def test_an_engine_on_the_gpu_is_proven(device: None, engine: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest.proof.complete
    assert manifest.compute_capability is not None


@pytest.mark.gpu
def test_batches_of_all_sizes_from_locked_and_other_memory(device: None, engine: Path) -> None:
    """Sizes with a captured graph and without one, in changing order."""
    from daemon.capture.slots import FrameSlots

    opened = open_engine(engine)
    size, most = opened.manifest.input_size, opened.manifest.max_batch
    frames = (generated_parity_frames(size) * 2)[:most]
    slots = FrameSlots.create(most, (*size, 3))
    slots.page_lock()
    for slot, frame in enumerate(frames):
        slots[slot][...] = frame
    expected = np.concatenate([opened.infer([frame], UNCALIBRATED)[SCORE] for frame in frames])
    for count in (*range(1, most + 1), *range(most, 0, -1)):
        for given in (frames[:count], [slots[slot] for slot in range(count)]):
            found = opened.infer(given, UNCALIBRATED)[SCORE]
            np.testing.assert_allclose(found, expected[:count], rtol=0.02)
    opened.close()
    slots.close()


@pytest.mark.gpu
def test_two_engines_on_the_gpu_at_once(device: None, engine: Path) -> None:
    import threading

    engines = [open_engine(engine) for _ in range(2)]
    size = engines[0].manifest.input_size
    frames = generated_parity_frames(size)
    expected = engines[0].infer(frames[:4], UNCALIBRATED)[SCORE]
    found: list[NDArray[np.float32]] = []

    def judge(number: int) -> None:  # in a thread that did not open it, as lanes do
        for _ in range(50):
            found.append(engines[number].infer(frames[:4], UNCALIBRATED)[SCORE])

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100
    for result in found:
        np.testing.assert_allclose(result, expected, rtol=1e-4)
    for opened in engines:
        opened.close()
