"""What is read out of the networks beside their differences: usual maps, density, the whole picture."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from data_set_folders import draw_part

from engine_runtime.engine import MAPS
from models.commands import efficientad as main
from models.efficientad.checkpoint import Run
from models.efficientad.picture import Picture, summary
from models.efficientad.positions import LEAST, USUAL, Density, Detail, UsualMap, pooled
from models.efficientad.teacher import load_teacher, teacher_file
from models.efficientad.train import train
from models.errors import TrainingFailed
from pictures.frames import Size

pytestmark = pytest.mark.usefixtures("one_thread")


def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_a_value_is_unusual_in_one_place_and_usual_in_another() -> None:
    noisy, quiet = 30.0, 1.0
    level = torch.full((8, 8), quiet)
    level[:, 4:] = noisy
    good = level * torch.randn(400, 8, 8, generator=random()).mul(0.2).exp()
    usual = UsualMap(Size(8, 8))
    usual.fit(good)
    assert (usual(good) <= 0).float().mean() == pytest.approx(0.9, abs=0.02)
    defective = good[:1].clone()
    defective[0, 2, 2] = 5 * quiet  # far below what the right half always shows
    (found,) = usual(defective)
    assert int(found.argmax()) == 2 * 8 + 2
    expected = (np.log(5 + LEAST) - usual.mean[2, 2]) / usual.deviation[2, 2] - USUAL
    assert float(found[2, 2]) == pytest.approx(float(expected), rel=1e-5)


def test_density_is_the_mahalanobis_distance_of_each_position() -> None:
    draws = random()
    mixing = torch.randn(6, 6, generator=draws)
    features = torch.einsum("cd,ndhw->nchw", mixing, torch.randn(300, 6, 8, 8, generator=draws))
    features += torch.randn(6, 8, 8, generator=draws)  # another mean at each position
    density = Density(6, Size(8, 8))
    averaged = pooled(features)
    density.choose_components(averaged)
    density.fit(torch.split(averaged, 64))
    distances = density(averaged[:5])
    assert distances.shape == (5, 8, 8)
    corner = averaged[:, :, 0, 0].double()
    away = corner[:5] - corner.mean(0)
    squares = torch.einsum("nc,cd,nd->n", away, torch.cov(corner.T).inverse(), away) / 6
    # The corner is not interpolated. A little of the covariance is that of all positions.
    np.testing.assert_allclose(distances[:, 0, 0], squares.sqrt(), rtol=0.1)


def test_the_fine_layers_say_where_and_all_layers_say_how_much() -> None:
    draws = random()
    fine, coarse = 6, 6
    good = torch.randn(60, fine + coarse, 8, 8, generator=draws)
    density = Density(fine + coarse, Size(8, 8), Detail(1, 12, 10**6, 3, fine_share=0.25, focus=1), fine)
    assert density.fine == 6, "there are no more coarse ones"
    density.choose_components(good)
    assert not density.basis[: density.fine, fine:].any()
    density.fit([good])
    blurred = good[:1].clone()
    blurred[:, fine:, 2:7, 2:7] += 6  # what the coarse layers see spreads
    blurred[:, :fine, 4, 4] += 6
    sharp, plain = density(blurred)[0], Density.forward(without_fine(density), blurred)[0]
    assert int(sharp.argmax()) == 4 * 8 + 4
    assert float(sharp.max()) == pytest.approx(float(plain.max()), rel=1e-5)
    around, beside = plain[3, 3] / plain.max(), sharp[3, 3] / sharp.max()
    assert beside < around
    assert density(torch.zeros(1, fine + coarse, 8, 8)).isfinite().all()


def without_fine(density: Density) -> Density:
    plain = copy.deepcopy(density)
    plain.fine = 0
    return plain


def test_a_density_fits_an_engine_at_any_size() -> None:
    large = Density(384, Size(250, 506))
    assert large.whitening.numel() * 4 < 14_000_000
    assert large(torch.zeros(1, 384, 125, 253)).shape == (1, 250, 506)


def test_the_distance_of_a_picture_stands_at_the_peak_of_another_map() -> None:
    draws = random()
    good = torch.randn(200, 4, 6, 6, generator=draws)
    picture = Picture(4)
    picture.fit(summary(good))
    shifted = good[:1] + torch.tensor([0, 2.0, 0, 0])[:, None, None]
    shape = torch.rand(2, 12, 12, generator=draws)
    usual, unusual = picture(torch.cat([good[:1], shifted]), shape)
    assert unusual.max() > 3 * usual.max()
    assert int(unusual.argmax()) == int(shape[1].argmax())
    share = shape[1] / shape[1].max()
    torch.testing.assert_close(unusual / unusual.max(), share)
    picture.focus = 2
    torch.testing.assert_close(picture(shifted, shape[1:])[0] / unusual.max(), share**2)
    assert picture(good[:1], torch.zeros(1, 12, 12)).isfinite().all()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for index in range(8):
        draw_part(tmp_path / "good" / f"{index}.png", index)
    return tmp_path / "good"


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        ((), "local,global,density,whole"),
        (("--no-density",), "local,global,whole"),
        (("--no-whole", "--no-autoencoder"), "local,density"),
        (("--no-position-aware", "--no-density", "--no-whole"), "local,global"),
    ],
)
def test_each_map_can_be_left_out(good: Path, options: tuple[str, ...], maps: str) -> None:
    model = good.with_name("model.pt")
    given = ["train", "--data", str(good), "--out", str(model), "--image-size", "128", "--steps", "1"]
    assert main([*given, *options]) == 0
    assert main(["export", str(model)]) == 0
    metadata = {entry.key: entry.value for entry in onnx.load(model.with_suffix(".onnx")).metadata_props}
    assert metadata[MAPS] == maps
    assert metadata["position_aware"] == ("no" if "--no-position-aware" in options else "yes")
    assert len(metadata["training_quantiles"].split(",")) == 2 * len(maps.split(","))


def test_one_image_does_not_say_what_is_usual(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in sorted(good.iterdir())[2:]:
        file.unlink()
    model = good.with_name("model.pt")
    given = ["train", "--data", str(good), "--out", str(model), "--image-size", "128", "--steps", "1"]
    assert main(given) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert "1 good image to train on does not say what is usual at each position; expected at least 2" in line
    assert main([*given, "--no-position-aware", "--no-density", "--no-whole"]) == 0


def test_two_images_say_a_little_of_what_is_usual(good: Path) -> None:
    for file in sorted(good.iterdir())[3:]:
        file.unlink()
    model = good.with_name("model.pt")
    given = ["train", "--data", str(good), "--out", str(model), "--image-size", "128", "--steps", "1"]
    assert main(given) == 0


def test_images_in_which_the_teacher_sees_nothing(tmp_path: Path) -> None:
    size = Size(128, 128)
    run = Run("xs", size, None, 1, 1, 0, "", "", None, "")
    black = torch.zeros(4, 3, *size, dtype=torch.uint8)
    teacher = {name: torch.zeros_like(tensor) for name, tensor in
               load_teacher("xs", teacher_file("xs", None)).items()}  # fmt: skip
    with pytest.raises(TrainingFailed, match="the teacher sees the same in all good images"):
        train(run, teacher, training=black, validation=black, penalty=None, out=tmp_path / "m.pt",
              checkpoint_every=1)  # fmt: skip
