import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from engine_graphs import little_model, save
from onnx import TensorProto, helper, numpy_helper

from engine_build.cli import main
from engine_build.graph import read_graph
from engine_build.parity_frames import generated_parity_frames
from engine_build.reference import run_reference
from engine_runtime.engine import SCORE, Engine
from engine_runtime.engine_file import read_engine, read_manifest
from engine_runtime.open import open_engine
from engine_runtime.proof import ProofFailed, batch_sizes, proof_steps, prove
from foundation.files import sha256

COMMAND = Path(sys.executable).parent / "build-engine"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(little_model(64, 96), tmp_path_factory.mktemp("model") / "little.onnx")


def refusal(capsys: pytest.CaptureFixture[str], model: Path, *options: str, code: int = 2) -> str:
    """Run build-engine, which must fail with one line and write nothing."""
    capsys.readouterr()
    before = sorted(model.parent.iterdir()) if model.parent.is_dir() else []
    assert main([str(model), *options]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert before == (sorted(model.parent.iterdir()) if model.parent.is_dir() else [])
    return line


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_model_becomes_a_proven_engine(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    target = tmp_path / "line3.engine"
    assert main([str(model), "-o", str(target), "--runtime", runtime, "--max-batch", "6"]) == 0
    manifest = read_manifest(target)
    assert (manifest.model, manifest.runtime, manifest.precision) == ("little", runtime, "fp32")
    assert (manifest.input_size, manifest.map_size, manifest.max_batch) == ((64, 96), (8, 16), 6)
    assert manifest.source_sha256 == sha256(model)
    assert manifest.model_metadata == {"size": "little"}
    assert manifest.proof.largest_score_difference < 1e-4
    assert list(manifest.proof.latency_ms) == [1, 2, 4, 6]
    assert all(latency > 0 for latency in manifest.proof.latency_ms.values())
    table = capsys.readouterr().out
    assert manifest.device in table
    assert re.search(r"^precision +fp32$", table, re.M)
    assert re.search(r"^largest score difference +\d\.\de-\d+ on 12 frames$", table, re.M)
    assert re.search(r"^batch size +1 +2 +4 +6$", table, re.M)
    open_engine(target).close()


def test_batches_are_no_larger_than_pays(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), "-o", str(tmp_path / "line3.engine"), "--fast"]) == 0
    manifest = read_manifest(tmp_path / "line3.engine")
    per_frame = {size: latency / size for size, latency in manifest.proof.latency_ms.items()}
    assert list(per_frame) == [1, 2, 4, 8]
    assert per_frame[manifest.max_batch] <= 1.1 * min(per_frame.values())
    smaller = [took for size, took in per_frame.items() if size < manifest.max_batch]
    assert all(took > 1.1 * min(per_frame.values()) for took in smaller)
    assert re.search(rf"^largest batch +{manifest.max_batch}$", capsys.readouterr().out, re.M)


def test_by_default_beside_the_model(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "flange.onnx"
    copy.write_bytes(model.read_bytes())
    assert main([str(copy), "--max-batch", "1"]) == 0
    assert read_manifest(tmp_path / "flange.engine").runtime in {"openvino", "onnxruntime"}


def test_parity_on_the_users_own_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(images / f"{index}.png"), random.integers(0, 256, (100, 120, 3), dtype=np.uint8))
    target = tmp_path / "own.engine"
    assert (
        main([str(model), "-o", str(target), "--parity-images", str(images), "--max-batch", "2", "--fast"])
        == 0
    )
    assert read_manifest(target).proof.parity_frames == 3
    (images / "3.png").write_bytes(b"no image")
    assert "3.png: is not a PNG, JPEG" in refusal(capsys, model, "--parity-images", str(images))
    (tmp_path / "empty").mkdir()
    assert "empty: holds no image" in refusal(capsys, model, "--parity-images", str(tmp_path / "empty"))
    assert "gone: not a folder" in refusal(capsys, model, "--parity-images", str(tmp_path / "gone"))


def foreign(inputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """Give the layout of an export by another tool: one float image in, a score and a map out."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["heat_map"], keepdims=1),
        helper.make_node("ReduceMax", ["input"], ["pred_score"], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pred_score", "heat_map")
    ]
    return helper.make_model(helper.make_graph(nodes, "foreign", inputs, outputs))


def with_weight(value: float) -> onnx.ModelProto:
    model = little_model()
    weight = model.graph.initializer[4]
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model


def edited(**changes: Any) -> onnx.ModelProto:
    """Change one part of the little model."""
    model = little_model(**changes.pop("shape", {}))
    frames, quantiles = model.graph.input
    if "operator" in changes:
        model.graph.node[3].op_type, model.graph.node[3].domain = changes["operator"]
        model.opset_import.append(helper.make_opsetid("com.acme", 1))
    if "frames" in changes:
        frames.CopyFrom(helper.make_tensor_value_info("frames", *changes["frames"]))
    if "quantiles" in changes:
        quantiles.CopyFrom(helper.make_tensor_value_info("quantiles", *changes["quantiles"]))
    if "without" in changes:
        kept = [output for output in model.graph.output if output.name != changes["without"]]
        del model.graph.output[:]
        model.graph.output.extend(kept)
    return model


IMAGE = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 256, 256])
EXPECTED = "expected frames uint8 N×H×W×3 and quantiles float32 2×2"


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (foreign([IMAGE]), f"inputs are input float32 batch×3×256×256; {EXPECTED}"),
        (
            edited(frames=(TensorProto.FLOAT, ["batch", 64, 64, 3])),
            f"frames float32 batch×64×64×3, .*{EXPECTED}",
        ),
        (
            edited(frames=(TensorProto.UINT8, ["batch", 3, 64, 64])),
            f"frames uint8 batch×3×64×64, .*{EXPECTED}",
        ),
        (
            edited(frames=(TensorProto.UINT8, ["batch", "h", "w", 3])),
            f"frames uint8 batch×h×w×3, .*{EXPECTED}",
        ),
        (edited(quantiles=(TensorProto.FLOAT, [4])), f"quantiles float32 4; {EXPECTED}"),
        (edited(shape={"batch": 1}), "frames is fixed to a batch of 1"),
        (edited(without="local_map"), "output local_map is missing; found score float32 batch, anomaly_map"),
        (edited(operator=("Frobnicate", "")), "Frobnicate"),
        (edited(operator=("Frobnicate", "com.acme")), "com.acme"),
        (with_weight(float("nan")), "weight 'weight4' has 1 of .* values that are NaN or infinite"),
        (with_weight(float("-inf")), "weight 'weight4' has 1 of .* values that are NaN or infinite"),
        (with_weight(3e38), "is NaN or infinite on a parity frame"),
    ],
)
def test_onnx_files_that_cannot_be_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: onnx.ModelProto, expected: str
) -> None:
    path = save(broken, tmp_path / "broken.onnx")
    line = refusal(capsys, path)
    assert line.startswith(f"build-engine: {path}: ")
    assert re.search(expected, line)


def test_files_that_are_no_onnx(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    assert "cannot be read: No such file" in refusal(capsys, path)
    assert "cannot be read: Is a directory" in refusal(capsys, tmp_path)
    for content in (b"", b"not ONNX at all", model.read_bytes()[:5000]):
        path.write_bytes(content)
        assert f"{path}: not an ONNX file" in refusal(capsys, path)


def test_weights_in_a_file_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "large.onnx"
    onnx.save_model(little_model(), path, save_as_external_data=True, location="large.bin", size_threshold=0)
    assert main([str(path), "--max-batch", "1", "--fast"]) == 0
    _, payload = read_engine(tmp_path / "large.engine")
    assert len(payload) > (tmp_path / "large.bin").stat().st_size
    (tmp_path / "large.bin").unlink()
    assert "external weights cannot be read" in refusal(capsys, path)


def test_a_flat_map_sees_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = little_model()
    for weight in model.graph.initializer:
        if len(weight.dims) == 4:
            weight.CopyFrom(numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
    line = refusal(capsys, save(model, tmp_path / "flat.onnx"))
    assert "local_map is" in line
    assert "all over the parity frames" in line


def test_a_graph_whose_rows_disturb_one_another_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = little_model()
    # As a batch normalisation left in training mode would, the scores look at the whole batch.
    node = next(node for node in model.graph.node if node.output[0] == "score")
    node.output[0] = "own_score"
    model.graph.node.append(helper.make_node("ReduceMean", ["own_score"], ["mean_score"], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["own_score", "mean_score"], ["score"]))
    path = save(model, tmp_path / "mixed.onnx")
    (tmp_path / "mixed.engine").write_bytes(b"the engine of yesterday")
    line = refusal(capsys, path, code=1)
    assert re.search(
        r"parity failed: in a batch of 2, score differs from the FP32 graph by \d\.\de[+-]\d+", line
    )
    assert (tmp_path / "mixed.engine").read_bytes() == b"the engine of yesterday"


class _Damaged:
    """A real engine whose scores are changed on the way out, as a runtime's defect would."""

    def __init__(self, engine: Engine, damage: Any) -> None:
        self.manifest, self._engine, self._damage = engine.manifest, engine, damage
        self.half_precision_share, self.close = engine.half_precision_share, engine.close

    def infer(self, frames: Any, *arguments: Any) -> Any:
        results = self._engine.infer(frames, *arguments)
        results[SCORE] = self._damage(frames, results[SCORE])
        return results


def _last_row_wrong_when_all_are_equal(frames: Any, scores: Any) -> Any:
    if len(frames) > 2 and all(frame is frames[0] for frame in frames):
        scores[-1] *= 1.001
    return scores


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _, scores: scores * np.float32(1.0003), "parity failed: in a batch of 1, score differs"),
        (lambda _, scores: np.roll(scores, 1), "parity failed: in a batch of 2, score differs"),
        (lambda _, scores: scores * np.nan, "score is NaN or infinite in a batch of 1"),
        (_last_row_wrong_when_all_are_equal, "batch rows differ: 4 equal frames"),
    ],
)
def test_the_proof_finds_a_defective_runtime(model: Path, tmp_path: Path, damage: Any, message: str) -> None:
    target = tmp_path / "little.engine"
    assert main([str(model), "-o", str(target), "--max-batch", "4", "--fast"]) == 0
    graph = read_graph(model)
    frames = generated_parity_frames(graph.input_size)
    reference = run_reference(graph, frames, lambda: None)
    engine = open_engine(target)
    prove(engine, reference, frames, lambda: None)
    with pytest.raises(ProofFailed, match=message):
        prove(_Damaged(engine, damage), reference, frames, lambda: None)


def test_progress_is_counted_to_the_end(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "little.engine"
    assert main([str(model), "-o", str(target), "--max-batch", "3", "--fast"]) == 0
    graph = read_graph(model)
    frames = generated_parity_frames(graph.input_size)
    steps: list[None] = []
    prove(open_engine(target), run_reference(graph, frames, lambda: None), frames, lambda: steps.append(None))
    assert len(steps) == proof_steps(len(frames), 3)


def test_batch_sizes() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(6) == [1, 2, 4, 6]
    assert batch_sizes(8) == [1, 2, 4, 8]


def test_options_that_cannot_be_met(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for runtime in ("openvino", "onnxruntime"):
        line = refusal(capsys, model, "--runtime", runtime, "--precision", "fp16")
        assert "precision is fp16" in line
    assert "is the model itself" in refusal(capsys, model, "-o", str(model))
    assert "cannot be written" in refusal(capsys, model, "-o", str(tmp_path / "no" / "such.engine"))
    large = save(little_model(1024, 1024), tmp_path / "large.onnx")
    line = refusal(capsys, large, "--max-batch", "1024")
    assert "large.onnx: --max-batch 1024: expected at most 2147483648 bytes" in line
    for wrong in ("0", "-1", "2.5", "many", "1025"):
        with pytest.raises(SystemExit) as raised:
            main([str(model), "--max-batch", wrong])
        assert raised.value.code == 2
    assert "expected a whole number from 1 to 1024" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = save(little_model(512, 512, channels=16), tmp_path / "large.onnx")
    script = (
        "import os, signal, engine_build.build as build\n"
        "run = build.run_reference\n"
        "def interrupted(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return run(*arguments)\n"
        "build.run_reference = interrupted\n"
        "from engine_build.cli import main\n"
        f"raise SystemExit(main([{str(path)!r}]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + signal.SIGINT
    [line] = ended.stderr.splitlines()
    assert line.startswith("build-engine: interrupted; ")
    assert [file.name for file in tmp_path.iterdir()] == ["large.onnx"]


def test_bfloat16_where_the_cpu_has_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openvino

    target = tmp_path / "little.engine"
    options = ("--precision", "bf16", "--max-batch", "2")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert "precision is bf16, and this CPU has no bfloat16" in refusal(capsys, model, *options)
        return
    assert main([str(model), "-o", str(target), *options]) == 0
    manifest = read_manifest(target)
    assert (manifest.precision, manifest.runtime) == ("bf16", "openvino")
    assert manifest.proof.half_precision_share > 0
    assert 0 < manifest.proof.largest_score_difference < 0.03
    open_engine(target).close()
    (tmp_path / "no.onnx").write_bytes(model.read_bytes())
    line = refusal(capsys, tmp_path / "no.onnx", "--runtime", "onnxruntime", *options)
    assert "precision is bf16; ONNX Runtime runs fp32 and int8" in line
