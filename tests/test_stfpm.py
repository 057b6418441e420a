"""STFPM: the graph gives what teacher and student give in torch, and tells defects from good parts."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from engine_build.cli import main as build_engine
from foundation.errors import InputError
from models.backbones.features import Features
from models.backbones.open import open_trunk
from models.backbones.trunk import Trunk
from models.commands import train_model
from models.exported import run_graph
from models.stfpm.fit import distance
from models.stfpm.graph import EPSILON, graph_of
from models.stfpm.network import Network
from pictures.frames import Size

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(128, 128)


def part(seed: int, *, defective: bool = False) -> NDArray[np.uint8]:
    """Draw a ring, or one with a gap."""
    picture = np.random.default_rng(seed).integers(90, 110, (128, 128, 3), dtype=np.uint8)
    cv2.circle(picture, (64 + seed % 3, 64), 40, (30, 180, 90), 12)
    if defective:
        cv2.rectangle(picture, (90, 50), (118, 78), (100, 100, 100), -1)
    return picture


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return open_trunk("lite0", SIZE, None)


def test_the_teacher_is_the_backbone(trunk: Trunk) -> None:
    planes = np.ascontiguousarray(part(0)[None].transpose(0, 3, 1, 2))
    with torch.inference_mode():
        ours = Network(trunk, learns=False).eval()(torch.from_numpy(planes).float())
    joined = open_trunk("lite0", SIZE, None).joined()
    theirs = Features(joined, 1)(torch.from_numpy(planes[:, ::-1].copy()))
    assert [tuple(features.shape[1:]) for features in ours] == list(trunk.features.values())
    # The joined features of stage 3 are those averaged over 3×3 cells.
    mean = torch.nn.functional.avg_pool2d(ours[1], 3, stride=1, padding=1, count_include_pad=False)
    first = ours[0].shape[1]
    np.testing.assert_allclose(theirs[:, first : first + mean.shape[1]], mean.numpy(), atol=1e-3)


def test_the_graph_gives_what_torch_gives(trunk: Trunk) -> None:
    torch.manual_seed(0)
    teacher, student = Network(trunk, learns=False).eval(), Network(trunk, learns=True)
    planes = torch.from_numpy(np.stack([part(seed) for seed in range(4)])).permute(0, 3, 1, 2).float()
    student(planes)  # the batch normalisations see something
    student.eval()
    with torch.inference_mode():
        maps = [
            distance(first, second) for first, second in zip(teacher(planes), student(planes), strict=True)
        ]
        spread = [
            torch.nn.functional.interpolate(found[:, None], maps[0].shape[1:], mode="bilinear")
            for found in maps
        ]
        expected = torch.cat(spread, 1).add(EPSILON).log().mean(1).exp()
    about = {"tool_version": "0", "training_quantiles": "0,0.1"}
    found = run_graph(graph_of(trunk, student.folded(), about), np.stack([part(seed) for seed in range(4)]))
    np.testing.assert_allclose(found["local"], expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_it_learns_and_becomes_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(12):
        (tmp_path / "good").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "good" / f"{seed}.png"), part(seed))
    (tmp_path / "defects").mkdir()
    for seed in range(12, 15):
        cv2.imwrite(str(tmp_path / "defects" / f"{seed}.png"), part(seed, defective=True))
    model = tmp_path / "line3.onnx"
    arguments = [
        "--data",
        str(tmp_path / "good"),
        "--out",
        str(model),
        "--defects",
        str(tmp_path / "defects"),
    ]
    options = ["--method", "stfpm", "--image-size", "128", "--steps", "25"]
    assert train_model([*arguments, *options]) == 0
    assert "3 defective images: AUROC 1.000" in capsys.readouterr().out
    said = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert (said["method"], said["maps"], said["contract"]) == ("stfpm", "local", "2")
    assert build_engine([str(model), "--fast", "--max-batch", "2"]) == 0


def test_a_backbone_that_no_student_can_imitate(trunk: Trunk) -> None:
    node = helper.make_node("Sigmoid", ["image"], ["bent"], name="bent")
    other = Trunk("other", "", SIZE, [node], [], {"bent": (3, 128, 128)})
    with pytest.raises(InputError, match="--backbone: other holds the operator Sigmoid, which a student"):
        Network(other, learns=True)
