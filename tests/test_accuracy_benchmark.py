"""The benchmark that fills the table of accuracy."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from data_set_folders import mvtec_loco
from onnx import TensorProto, helper, numpy_helper

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    return accuracy


def cell(method: str, data: str, auroc: float, au_pro: float | None, seed: int = 0) -> dict[str, Any]:
    return {
        "command": "accuracy.py",
        "settings": {"method": method, "data": data, "seed": seed},
        "device": "a CPU",
        "learned_in_s": 3.0,
        "image_auroc": auroc,
        "au_pro": au_pro,
    }


def test_the_page_gives_means_and_spreads_of_what_is_finished(accuracy: Any) -> None:
    cells = [
        cell("ours, XS", "bottle", 0.90, 0.8),
        cell("ours, XS", "bottle", 1.00, 0.6, seed=1),
        cell("ours, XS", "aliens", 0.85, None),
        cell("ours, S", "bottle", 0.99, 0.9),
    ]
    content = {"date": "2026-01-01", "steps": 10, "cells": cells}
    page = accuracy.as_markdown(content)
    assert "| ours, XS | 0.850 | 0.950 ± 0.071 | 0.900 |" in page
    assert "| ours, S | – | 0.990 |  |" in page  # no mean over products that are not all measured
    assert "| ours, XS | 0, 1 | a CPU | 3 |" in page
    assert "| ours, XS | – | 0.700 ± 0.141 |  |" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "s", "--teacher-s", "missing.safetensors"), "missing.safetensors: "),
        (("--methods", "nearest"), "--methods nearest: needs --backbone FILE"),
        (("--methods", "xs", "--natural", "missing"), "missing: not a folder"),
        (
            ("--methods", "xs", "--json", "FOLDER/other.json"),
            "other.json: is not a table that accuracy.py has written",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    accuracy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "other.json").write_text("[]")
    given = ["--data", str(tmp_path), "--natural", str(tmp_path), "--out", str(tmp_path / "out")]
    given += ["--json", str(tmp_path / "accuracy.json")]
    assert accuracy.main([*given, *(option.replace("FOLDER", str(tmp_path)) for option in options)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_finished_cell_is_not_measured_again(accuracy: Any, tmp_path: Path, shared_data: Path) -> None:
    table = tmp_path / "accuracy.json"

    def run(*more: str) -> list[dict[str, Any]]:
        hazelnuts = shared_data / "hazelnut_toy"
        options = ["--data", hazelnuts, "--natural", hazelnuts / "train/good", "--steps", "2"]
        options += ["--methods", "nearest", "--backbone", shared_data / "backbone/mobilenet_v2_quant.onnx"]
        options += ["--out", tmp_path / "out", "--json", table]
        assert accuracy.main([*(str(option) for option in options), *more]) == 0
        cells: list[dict[str, Any]] = json.loads(table.read_text())["cells"]
        return cells

    [first] = run()
    assert first["image_auroc"] > 0.95
    assert first["images"]["test"] == 23
    assert run() == [first]  # down to the seconds that it took
    table.write_text(json.dumps({"cells": [first | {"settings": first["settings"] | {"natural": "other"}}]}))
    [anew] = run()
    assert anew["settings"] == first["settings"]
    assert anew["image_auroc"] == first["image_auroc"]
    own, reference = run("--methods", "xs")  # the table grows
    assert reference == anew
    assert own["settings"]["method"] == "ours, XS"
    page = accuracy.as_markdown({"steps": 2, "cells": [own, reference]})
    assert page.count("python benchmarks/accuracy.py") == 2


class SmallModule(torch.nn.Module):
    """What a learner needs of the peer's module, in a few weights."""

    lr, weight_decay = 0.01, 0.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        model: Any = torch.nn.Module()
        model.student, model.ae = torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(3, 2, 3)
        model.mean_std = {}
        model.forward = self.losses
        self.model = model

    def teacher_channel_mean_std(self, batches: list[Any]) -> dict[str, torch.Tensor]:
        return {"mean": torch.stack([batch.image for batch in batches]).mean()}

    def losses(self, batch: torch.Tensor, batch_imagenet: torch.Tensor) -> list[torch.Tensor]:
        noise = torch.rand(())
        return [self.model.student(batch).square().mean() + noise, self.model.ae(batch_imagenet).abs().mean()]


def test_a_training_of_the_peer_that_was_cut_off_goes_on_to_the_same_model(
    accuracy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peer"))
    from learner import Learner

    images = np.random.default_rng(0).random((3, 3, 8, 8), dtype=np.float32)

    def begin(state: str, seed: int = 0) -> tuple[torch.nn.Module, Any]:
        module = SmallModule()
        monkeypatch.setattr("learner.GREY", 0.0)  # torchvision is in the peer's environment only
        run = {"seed": seed}
        options = {"steps": 20, "seed": seed, "state": tmp_path / state, "run": run}
        return module, Learner(module, images, images, **options)

    whole, learner = begin("whole.pt")
    learner.learn(10)
    learner.learn(10)
    _, cut_off = begin("part.pt")
    cut_off.learn(10)
    resumed, learner = begin("part.pt")
    assert learner.taken == 10
    learner.learn(10)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name])
    _, other = begin("part.pt", seed=1)
    assert other.taken == 0


def test_an_object_without_good_test_images_is_tested_with_those_for_validation(
    accuracy: Any, tmp_path: Path
) -> None:
    from detection.held_back import with_good_test

    from models.datasets.open import open_data_set

    root = mvtec_loco(tmp_path / "juice_bottle")
    assert with_good_test(root, tmp_path / "links") == root
    shutil.rmtree(root / "test" / "good")
    for _ in range(2):  # the links of an earlier run are laid anew
        held_back = open_data_set(with_good_test(root, tmp_path / "links"))
        good = held_back.good()
        assert (len(good.training), len(good.validation)) == (4, 1)
        tested = [sample.image.resolve() for sample in held_back.test() if sample.defect is None]
        assert tested == sorted(root.glob("validation/good/*"))
        assert [sample.defect for sample in held_back.test()[2:]] == [
            "logical_anomalies",
            "structural_anomalies",
        ]
        assert held_back.saturations() == open_data_set(root).saturations()


def test_a_composition_knows_how_much_of_a_picture_shows_what_and_where(accuracy: Any) -> None:
    import composition

    assert accuracy.METHODS  # its folder is where benchmarks are imported from
    draws = torch.Generator().manual_seed(0)
    good = 0.3 * torch.randn(12, 40, 8, 8, generator=draws)
    for index in range(len(good)):  # one thing above, and more or less of another on the right below it
        good[index, :20, :4] += 3
        good[index, 20:, 4:, 4 + index % 3 :] += 3
    for softness in (0.0, 0.05):
        head = composition.Head(good, 3, 0.0, softness)
        areas = head.areas(good)
        np.testing.assert_allclose(areas[:, :3].sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(areas[:, :3], areas[:, 3:].reshape(12, 3, 4).mean(2), rtol=1e-4)
        distance = composition.distance_from(good, head.areas)
        assert distance(good[:1].flip(2))[0] > 5 * distance(good[1:2])[0]


def test_a_backbone_gives_its_features_where_the_peers_networks_have_their_cells(
    accuracy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peer"))
    from backbone import Backbone

    # Each cell of 8×8 pixels says how blue its first pixel is: OpenVINO's order of colours, and the places.
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 128, 128])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2, 16, 16])
    kernel = np.zeros((2, 3, 8, 8), dtype=np.float32)
    kernel[:, 0, 0, 0] = 1, 2
    convolution = helper.make_node("Conv", ["image", "kernel"], ["features"], strides=[8, 8])
    weights = [numpy_helper.from_array(kernel, "kernel")]
    graph = helper.make_graph([convolution], "backbone", [image], [features], weights)
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "teacher.onnx")
    backbone = Backbone(str(tmp_path / "teacher.onnx"), 1)
    assert backbone.channels == 2

    images = torch.zeros(2, 3, 128, 128)
    images[:, 2] = torch.arange(128).expand(128, 128) / 255
    found = backbone(images)
    assert found.shape == (2, 2, 24, 24)  # as 128×128 pixels without padding
    torch.testing.assert_close(found[0, 0, 0], torch.arange(24) * 4.0 + 14, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1, 1], 2 * found[0, 0], atol=1e-3, rtol=0)
