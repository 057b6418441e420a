"""EfficientAD with a backbone itself as its teacher, and maps that count as much as was learned."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from data_set_folders import draw_part
from numpy.typing import NDArray
from torch import nn

from calibration.measure import measure_quantiles
from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_runtime.open import open_engine
from models.backbones.features import Features
from models.commands import efficientad, train_model
from models.efficientad.checkpoint import Run, load_model, load_progress, progress_file
from models.efficientad.export import export
from models.efficientad.model import EfficientAd
from models.efficientad.networks import normalised
from models.efficientad.teacher import open_teacher
from models.efficientad.train import train
from models.efficientad.weights import LEAST, map_weights
from models.evaluation.judge import open_judge
from models.exported import run_graph
from pictures.frames import Size, fit
from pictures.heatmap import MapGeometry
from pictures.map_quantiles import MAP_WEIGHTS, weighted, weights_in

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

SIZE = Size(131, 202)
"""No multiple of the backbone's strides."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps: ``part.onnx``, with the checkpoint beside it."""
    folder = tmp_path_factory.mktemp("part")
    for index in range(12):
        draw_part(folder / "good" / f"{index}.png", index)
    out = folder / "part.onnx"
    given = ["--data", str(folder / "good"), "--method", "efficientad", "--teacher", "lite0"]
    assert train_model([*given, "--image-size", "131x202", "--steps", "2", "--out", str(out)]) == 0
    return out


def test_graph_gives_what_torch_gives_and_says_what_it_is(trained: Path) -> None:
    _, model = load_model(trained.with_suffix(".pt"))
    frames = np.random.default_rng(3).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        judged = model(torch.from_numpy(frames), model.quantiles)
    graph = onnx.load(trained)
    found = run_graph(graph, frames)
    assert list(found) == list(model.map_names) == ["local", "global", "density", "whole"]
    for name, maps in zip(model.map_names, judged.maps, strict=True):
        assert found[name].shape == (2, 17, 26)  # stride 8, and no margin
        np.testing.assert_allclose(found[name], maps, atol=1e-4 * float(maps.abs().max()))
    metadata = read_graph(trained).metadata
    assert metadata["backbone"] == "efficientnet-lite0"
    assert "Apache-2.0" in metadata["backbone_licence"]
    assert MapGeometry.of(SIZE, Size(17, 26), metadata) == model.geometry
    np.testing.assert_allclose(weights_in(metadata, 4), model.weights, rtol=1e-4)
    # The teacher in torch is the backbone.
    images = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)
    assert model.trunk is not None
    expected = np.concatenate([Features(model.trunk, 1)(image[None]) for image in images])
    np.testing.assert_allclose(model.teacher(normalised(images)), expected, atol=1e-3)
    # The checkpoint and the graph judge alike.
    of_graph, of_checkpoint = (
        open_judge(trained.with_suffix(suffix), None).judge([*frames]) for suffix in (".onnx", ".pt")
    )
    np.testing.assert_allclose(of_graph.scores, of_checkpoint.scores, rtol=1e-3)


def test_export_again_is_the_same_graph(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    assert efficientad(["export", str(trained.with_suffix(".pt")), "-o", str(again)]) == 0
    assert onnx.load(again).graph == onnx.load(trained).graph


@pytest.mark.parametrize("damage", ["no base64", "cut"])
def test_a_damaged_backbone_in_a_checkpoint_is_refused(
    trained: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(trained.with_suffix(".pt"), weights_only=True)
    content["trunk"]["trunk"] = "%" if damage == "no base64" else content["trunk"]["trunk"][:4000]
    torch.save(content, tmp_path / "damaged.pt")
    capsys.readouterr()
    assert efficientad(["export", str(tmp_path / "damaged.pt")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "damaged.pt: is a damaged model: the backbone is damaged" in error


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("lite9", "lite9: cannot be read"),
        ("torchvision:nothing", "nothing"),
        ("missing.onnx", "missing.onnx"),
    ],
)
def test_a_teacher_that_is_none_is_refused_in_one_line(
    trained: Path, tmp_path: Path, teacher: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "part.onnx"
    given = ["--data", str(trained.parent / "good"), "--method", "efficientad", "--teacher", teacher]
    assert train_model([*given, "--image-size", "128", "--out", str(out)]) == 2
    [*_, line] = capsys.readouterr().err.splitlines()  # after the bar of the images that were read
    assert line.startswith("train-model: ") and said in line
    assert not out.exists()


class Stopped(Exception):
    pass


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    size = Size(128, 128)
    teacher, digest = open_teacher("xs", Path("lite0"), size)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, *size), dtype=np.uint8))
    run = Run("xs", size, None, 2, 1, 0, "", digest, None, "")
    given: dict[str, Any] = {"training": images[:4], "validation": images[4:], "penalty": None}

    def stop(step: int, model: EfficientAd) -> None:
        raise Stopped

    cut_off, whole = tmp_path / "cut-off.pt", tmp_path / "whole.pt"
    with pytest.raises(Stopped):
        train(run, teacher, **given, out=cut_off, checkpoint_every=1, watch=stop)
    assert load_progress(progress_file(cut_off), run) is not None
    assert train(run, teacher, **given, out=cut_off, checkpoint_every=1).resumed_at == 1
    train(run, teacher, **given, out=whole, checkpoint_every=5)
    _, resumed = load_model(cut_off)
    _, expected = load_model(whole)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0)


class Constant(nn.Module):
    """Gives the same features for every image."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features


def test_a_map_counts_as_much_as_its_network_explains() -> None:
    torch.manual_seed(0)
    size = Size(128, 128)
    model = EfficientAd("xs", size).eval()
    image = normalised(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
    model.teacher_mean.copy_(model.teacher(image).mean((0, 2, 3)))
    targets = model.targets(image).detach()
    for share in (1.0, 0.75, 0.0):
        # What is missed is 1 - share of the variance.
        student = targets * (1 - (1 - share) ** 0.5)
        model.student = Constant(torch.cat([student, targets], 1))  # type: ignore[assignment]
        model.autoencoder = Constant(-targets)  # type: ignore[assignment]
        everywhere = torch.ones(targets.shape[2:], dtype=torch.bool)
        found = map_weights(model, [image, image], everywhere)
        torch.testing.assert_close(found, torch.tensor([max(share, LEAST), LEAST, 1.0, 1.0]))


def test_what_a_mask_leaves_out_does_not_count_for_the_weight_of_a_map() -> None:
    torch.manual_seed(0)
    size = Size(128, 128)
    model = EfficientAd("xs", size).eval()
    image = normalised(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8))
    model.teacher_mean.copy_(model.teacher(image).mean((0, 2, 3)))
    targets = model.targets(image).detach()
    there = torch.zeros(targets.shape[2:], dtype=torch.bool)
    there[:, 10:] = True
    student = targets.clone()
    student[..., ~there] *= -1  # it is wrong where nobody looks
    model.student = Constant(torch.cat([student, targets], 1))  # type: ignore[assignment]
    model.autoencoder = Constant(student)  # type: ignore[assignment]
    assert map_weights(model, [image], there).tolist() == [1, 1, 1, 1]
    assert map_weights(model, [image], ~there).tolist() == pytest.approx([LEAST, LEAST, 1, 1])


def test_weights_move_q_b_away() -> None:
    quantiles = np.array([[1.0, 2.0], [-3.0, 1.0]], dtype=np.float32)
    found = weighted(quantiles, np.array([1, 0.25], dtype=np.float32))
    np.testing.assert_allclose(found, [[1, 2], [-3, 13]])
    assert weights_in({}, 3).tolist() == [1, 1, 1]


def test_weights_that_are_none_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(trained)
    [entry] = [entry for entry in model.metadata_props if entry.key == MAP_WEIGHTS]
    for weights in ("", "1", "1,1,1,nan", "1,1,1,0", "1,1,1,-2", "1,1,1,a", "inf,1,1,1"):
        entry.value = weights
        onnx.save(model, tmp_path / "given.onnx")
        capsys.readouterr()
        assert build_engine([str(tmp_path / "given.onnx"), "--fast"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"metadata map_weights is {weights!r}; expected 4 numbers above 0" in error


def test_calibration_keeps_the_weights(brightness_engine: Path, tmp_path: Path) -> None:
    files = [draw_part(tmp_path / f"{level}.png", level, level=level) for level in range(20, 200, 30)]
    engine = open_engine(brightness_engine)

    def measured() -> NDArray[np.float32]:
        size = engine.manifest.input_size
        return measure_quantiles(engine, files, lambda frame: fit(frame, size))

    alike = measured()
    metadata = engine.manifest.model_metadata | {MAP_WEIGHTS: "0.5,0.125"}
    engine.manifest = engine.manifest.model_copy(update={"model_metadata": metadata})
    found = measured()
    engine.close()
    np.testing.assert_array_equal(found[:, 0], alike[:, 0])
    np.testing.assert_allclose(np.diff(found)[:, 0], np.diff(alike)[:, 0] * [2, 8], rtol=1e-4)


def test_an_older_checkpoint_has_no_weights(tmp_path: Path) -> None:
    from models.efficientad.checkpoint import save_model

    size = Size(128, 128)
    run = Run("xs", size, None, 1, 1, 0, "", "", None, "")
    save_model(tmp_path / "old.pt", run, EfficientAd("xs", size))
    content = torch.load(tmp_path / "old.pt", weights_only=True)
    del content["state"]["weights"]
    torch.save(content, tmp_path / "old.pt")
    _, model = load_model(tmp_path / "old.pt")
    assert model.weights.tolist() == [1, 1, 1, 1]
    export(tmp_path / "old.onnx", run, model)
    assert MAP_WEIGHTS not in read_graph(tmp_path / "old.onnx").metadata
