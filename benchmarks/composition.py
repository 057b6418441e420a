"""Whether a composition head finds logical defects that EfficientAD, with a backbone as teacher, misses.

    python benchmarks/composition.py --data DIR --out FOLDER --markdown docs/benchmarks/composition.md

As in CSAD (arXiv 2408.15628): k-means of the backbone's features and of the position over the good images,
areas of the kinds over the whole image and its quarters, and their Ledoit–Wolf distance. The head that tells
the kinds apart is the one that the centres make: for a softmax over squared distances it is linear. Nothing
is trained. Logical defects of the simulated line are drawn into FOLDER and judged beside the products.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import product as combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from detection.command_line import as_shown
from detection.held_back import with_good_test
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from calibration.ranking import Ranking
from daemon.capture.drivers.simulated.line import SimulatedLine
from foundation.command import run_command
from foundation.files import write_whole
from models import training_images
from models.backbones.open import open_trunk
from models.datasets.data_set import DataSet
from models.datasets.open import open_data_set
from models.efficientad.model import EfficientAd
from models.efficientad.networks import normalised
from models.efficientad.picture import summary
from models.efficientad.positions import pooled
from models.efficientad.train import look_at_teacher
from models.padim.fit import principal_components
from models.padim.gaussians import of_pictures
from pictures.frames import Size, fit
from pictures.image_file import read_image

PROG = "composition.py"
SIZE = Size(256, 256)
KINDS, PLACES, SOFTNESS = (5, 8, 12), (0.0, 0.5, 1.5), (0.0, 0.05)
"""Numbers of kinds; weights of the position beside features of variance 1; 0 is the nearest centre."""
COMPONENTS = 32
MOST_CELLS = 20_000
SIMULATED = {"train/good": (160, 0, 0.0), "test/good": (80, 1000, 0.0), "test": (120, 2000, 1.0)}
"""Folder → number of parts, the first of them, share of defective ones."""

Values = NDArray[np.float64]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return run_command(PROG, lambda: run(parser().parse_args(words), as_shown(PROG, words)))


def run(options: argparse.Namespace, command: str) -> int:
    """Measure all rows on all products and write the page."""
    simulated = options.out / "simulated"
    draw(simulated)
    found = {}
    for data in [simulated, *options.data]:
        data_set = open_data_set(with_good_test(data, options.out / "held-back"))
        found[data.name] = measured(data_set)
    page = as_markdown(found, command)
    if options.markdown is not None:
        write_whole(options.markdown, page.encode())
    print(page)
    return 0


def draw(folder: Path) -> None:
    """Draw parts of the simulated line as a product."""
    for place, (count, first, defects) in SIMULATED.items():
        line = SimulatedLine(seed=0, defects=defects, kinds="logical", width=SIZE.width, height=SIZE.height)
        for index in tqdm(range(first, first + count), desc="drawing", unit="part"):
            frame, part = line.frame(index)
            file = folder / place / (part.defect or "") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), frame)


def measured(data_set: DataSet) -> dict[str, tuple[float, float]]:
    """Give of each row the image AUROC alone, and that of its mean with density and whole picture."""
    split = training_images.load(data_set, SIZE, None, 0)
    model = EfficientAd("xs", SIZE, trunk=open_trunk("lite0", SIZE, None).joined()).eval()
    look_at_teacher(model, split.training, torch.device("cpu"))
    samples = data_set.test()
    pictures = [fit(read_image(sample.image), SIZE)[..., ::-1].transpose(2, 0, 1) for sample in samples]
    defective = np.array([sample.defect is not None for sample in samples])
    good, held_out, test = (
        seen(model, images)
        for images in (split.training, split.validation, torch.from_numpy(np.stack(pictures)))
    )

    def told(values: Values) -> float:
        weights = np.ones((1, len(defective)))
        return float(Ranking(values, defective).auroc(weights)[0])

    def scores(judge: Callable[[Tensor], Values]) -> Values:
        """Give z-scores of the test images, by what held-out good ones have."""
        usual = judge(held_out)
        z_scores: Values = (judge(test) - usual.mean()) / usual.std(ddof=1)
        return z_scores

    first = scores(lambda part: density(model, part)), scores(distance_from(good, summary))
    found = {name: (told(values),) * 2 for name, values in zip(("density", "whole"), first, strict=True)}
    found["density and whole"] = (told(first[0] + first[1]),) * 2
    for count, place, softness in combinations(KINDS, PLACES, SOFTNESS):
        head = Head(good, count, place, softness)
        composition = scores(distance_from(good, head.areas))
        row = f"{count} kinds, position × {place:g}, {'linear head' if softness else 'nearest centre'}"
        found[row] = told(composition), told(first[0] + first[1] + composition)
    return found


@torch.no_grad()
def seen(model: EfficientAd, images: Tensor) -> Tensor:
    """Give the backbone's features of N×3×H×W uint8 images, N×C×h×w."""
    return torch.cat([model.targets(normalised(image[None])) for image in images])


@torch.no_grad()
def density(model: EfficientAd, features: Tensor) -> Values:
    """Give the largest value of the map ``density`` of each picture."""
    assert model.density is not None
    peaks = [model.density(pooled(part[None], model.detail)).amax() for part in features]
    return torch.stack(peaks).double().numpy()


def distance_from(good: Tensor, describe: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Values]:
    """Give what measures how far the description of a picture is from those of good ones."""
    gaussian = of_pictures(describe(good).numpy())

    def distance(part: Tensor) -> Values:
        apart = describe(part).numpy().astype(np.float64) - gaussian.mean
        squares: Values = np.square(apart @ gaussian.whitening).mean(axis=1)
        return np.sqrt(squares)

    return distance


class Head:
    """Tells of each cell which kind of thing it shows.

    Args:
        good: features of the good images, N×C×h×w.
        count: of kinds.
        place: weight of the position.
        softness: 0 for the nearest centre, else what squared distances are divided by before the softmax.
    """

    def __init__(self, good: Tensor, count: int, place: float, softness: float) -> None:
        self._count, self._place, self._softness = count, place, softness
        basis, _, _ = principal_components(good[:: -(-len(good) // 32)].numpy(), 0, COMPONENTS)
        self._basis = torch.from_numpy(basis)[:, :, None, None]
        self._scale = functional.conv2d(good[:32], self._basis).square().sum(1).mean().sqrt()
        rows = self._cells(good).flatten(0, 2).numpy()
        some = np.random.default_rng(0).permutation(len(rows))[:MOST_CELLS]
        cv2.setRNGSeed(0)
        until = (cv2.TERM_CRITERIA_MAX_ITER, 50, 0.0)
        _, _, centres = cv2.kmeans(rows[some], count, None, until, 1, cv2.KMEANS_PP_CENTERS)
        self._centres = torch.from_numpy(centres)

    def _cells(self, features: Tensor) -> Tensor:
        """Give what is clustered, N×h×w×(components + 2)."""
        projected = functional.conv2d(features, self._basis) / self._scale
        rows, columns = (torch.linspace(-1, 1, side) for side in features.shape[2:])
        place = self._place * torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return torch.cat([projected, place.expand(len(features), -1, -1, -1)], 1).permute(0, 2, 3, 1)

    def areas(self, features: Tensor) -> Tensor:
        """Give the area of each kind, as a share of the picture and of its quarters, N×5K."""
        return torch.cat([self._areas(part) for part in features.split(16)])

    def _areas(self, features: Tensor) -> Tensor:
        squares = torch.cdist(self._cells(features), self._centres).square()
        if self._softness:
            kinds = functional.softmax(-squares / self._softness, dim=3)
        else:
            kinds = functional.one_hot(squares.argmin(3), self._count).float()
        planes = kinds.permute(0, 3, 1, 2)
        quarters = functional.adaptive_avg_pool2d(planes, 2).flatten(1)
        return torch.cat([planes.mean((2, 3)), quarters], 1)


def as_markdown(found: dict[str, dict[str, tuple[float, float]]], command: str) -> str:
    """Lay the rows out, alone and with density and whole picture in each cell."""
    lines = [
        "# What a composition head finds",
        "",
        "Kinds of things are k-means of the backbone's features and of the position over the good images."
        " Their areas over the whole picture and its quarters have a Ledoit–Wolf distance from those of good"
        " images. Image AUROC of that distance alone / of its mean with the largest density and the picture"
        " as a whole, each a z-score by good images held out. Written by",
        "",
        f"    {command}",
        "",
        "| | " + " | ".join(found) + " |",
        "|---|" + " --: |" * len(found),
    ]
    for row in next(iter(found.values())):
        values = (products[row] for products in found.values())
        cells = (f"{alone:.3f} / {both:.3f}" if " kinds" in row else f"{alone:.3f}" for alone, both in values)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, nargs="*", default=[], metavar="DIR", help="one product each")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for pictures")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    return made


if __name__ == "__main__":
    sys.exit(main())
