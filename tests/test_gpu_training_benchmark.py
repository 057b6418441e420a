"""The command that distils and trains on a GPU, with few steps on the CPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from data_set_folders import draw_part, mvtec_ad
from onnx import TensorProto, helper, numpy_helper

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpu_training(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_training

    return gpu_training


def backbone(path: Path) -> Path:
    """A classifier of two convolutions, 64 features at stride 8 and 64 at stride 16."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in (("first", (64, 3, 8, 8)), ("second", (64, 64, 2, 2)))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["stride8"]),
        helper.make_node("Conv", ["stride8", "second"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["b"], ["stride16"]),
        helper.make_node("GlobalAveragePool", ["stride16"], ["classes"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    classes = helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 64, 1, 1])
    graph = helper.make_graph(nodes, "small", [image], [classes], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def arguments(folder: Path) -> list[str]:
    for index in range(20):
        draw_part(folder / "photographs" / f"{index}.png", 900 + index, level=40 + 8 * index)
    given = {
        "--photographs": folder / "photographs",
        "--natural": folder / "photographs",
        "--data": mvtec_ad(folder / "bottle"),
        "--out": folder / "out",
        "--backbone": backbone(folder / "backbone.onnx"),
        "--sizes": "xs",
        "--distil-steps": 2,
        "--batch": 2,
        "--steps": 2,
        "--seeds": 1,
    }
    return [str(word) for pair in given.items() for word in pair]


@pytest.mark.slow
def test_teachers_are_distilled_and_the_table_is_filled(
    gpu_training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.efficientad.distill.PROJECTION_CROPS", 16)
    given = [*arguments(tmp_path), "--cpu"]
    assert gpu_training.main(given) == 0
    teacher = tmp_path / "out" / "teacher-xs.safetensors"
    [cell] = json.loads((tmp_path / "out" / "accuracy.json").read_text())["cells"]
    assert (cell["settings"]["method"], cell["settings"]["data"]) == ("ours, XS", "bottle")
    assert "| ours, XS |" in (tmp_path / "out" / "accuracy.md").read_text()
    made = teacher.stat().st_mtime_ns
    assert gpu_training.main(given) == 0  # nothing is done twice
    assert teacher.stat().st_mtime_ns == made

    import readouts

    page = tmp_path / "readouts.md"
    products = ["--data", str(tmp_path / "bottle"), "--models", str(tmp_path / "out")]
    assert readouts.main([*products, "--markdown", str(page)]) == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(readouts.ROWS) == 5
    (ours,) = (row for row in rows if row.endswith(f"| {cell['image_auroc']:.3f} |") and "= ours" in row)
    assert f"{cell['au_pro']:.3f}" in ours  # read out anew, it is what the training gave

    import accuracy_per_minute

    data = ["--data", str(tmp_path / "bottle"), "--natural", str(tmp_path / "photographs")]
    turns = [*data, "--out", str(tmp_path / "turns"), "--methods", "xs-paper,xs", "--steps", "1", "2"]
    assert accuracy_per_minute.main([*turns, "--markdown", str(page)]) == 0
    cells = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ours")]
    assert [(name, steps) for name, _, steps, *_ in cells] == [
        (f"| ours, XS{maps}", steps) for maps in ("", ", the paper's maps") for steps in ("1", "2")
    ]


def test_without_a_gpu_it_says_so(
    gpu_training: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = ["--photographs", "a", "--natural", "b", "--data", "c", "--out", str(tmp_path / "out")]
    assert gpu_training.main(given) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("gpu_training.py: no GPU was found")
    assert not (tmp_path / "out").exists()
