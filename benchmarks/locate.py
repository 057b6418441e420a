"""What bringing parts to their place costs and gives, and what a mask does.

    python benchmarks/locate.py --products ../shared/data/toothbrush ../shared/data/aliens \
        --masked ../shared/data/bottle ../shared/data/toothbrush --out docs/benchmarks/locate.md
    python benchmarks/locate.py --products ../shared/data/toothbrush ../shared/data/aliens --times
    python benchmarks/locate.py --products ../shared/data/toothbrush ../shared/data/aliens --parts 30 \
        --keep xs --out xs.md --training --method efficientad --teacher lite0 --steps 1000

Parts are moved by us: every picture is laid on a larger one, that continues its border, and is shifted and
turned there by chance, but for the first good one, in which the part is taught. A model is fitted to the
moved pictures as they are, to the same brought to their place, and to those that were not moved. With
``--keep`` the same command goes on where it was cut off.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.detection import auroc
from foundation.files import write_whole
from models.datasets.open import open_data_set
from models.evaluation.evaluate import Judged, judge_samples
from models.evaluation.judge import open_judge
from models.train_cli import run as train_model
from pictures.frames import Frame, Roi
from pictures.image_file import read_image
from pictures.locating.locator import Locator, Place
from pictures.locating.reference import Reference
from pictures.locating.reference_file import write_reference
from pictures.locating.teach import teach
from pictures.mask import weigh
from pictures.suggest_mask import suggest

SHIFT, TURN = 20.0, 15.0
BORDER = 80
"""Pixels of the larger picture around each: as much as a turn by 15° needs."""
TAUGHT = 30
_DUST = 6


class Picture(NamedTuple):
    """A picture of a product, and where it lies in the folders of a data set."""

    name: Path
    pixels: Frame


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--products", type=Path, nargs="*", default=[], metavar="DIR", help="in MVTec AD's layout"
    )
    parser.add_argument(
        "--masked", type=Path, nargs="*", default=[], metavar="DIR", help="in MVTec AD's layout"
    )
    parser.add_argument(
        "--parts", type=int, default=100, help="simulated parts of each kind (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the motions (default: %(default)s)")
    parser.add_argument(
        "--training",
        nargs=argparse.REMAINDER,
        default=["--method", "padim"],
        metavar="OPTION",
        help="options of train-model, the last ones here (default: --method padim)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="pictures and models of this very command stay here"
    )
    parser.add_argument(
        "--times", action="store_true", help="only time the search and a mask, on a quiet machine"
    )
    parser.add_argument("--out", type=Path, help="the page, .md, written after each row")
    options = parser.parse_args()
    if (options.out is None) != options.times:
        parser.error("expected one of --out and --times")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.times:
            _print_times(options, Path(folder))
            return
        lines: list[str] = []
        for line in _page(options, options.keep or Path(folder)):
            lines.append(line)
            write_whole(options.out, "\n".join(lines).encode() + b"\n")
    print("\n".join(lines))


def _page(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    products = _products(options, folder)
    yield from [
        "# Parts that are moved, and masks",
        "",
        f"Shifted by up to {SHIFT:g} pixels and turned by up to {TURN:g}°, by chance (seed {options.seed}). "
        f"Image AUROC, `train-model {' '.join(options.training)}`. `python benchmarks/locate.py --help` says "
        "how pictures were moved.",
        "",
        f"    python {' '.join(sys.argv)}",
        "",
        "| product | images: learnt, good, defective | not moved | not moved, `locate` | moved "
        "| moved, `locate` | not found | search in ms, median (fastest), picture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, pictures in products:
        yield _row(name, pictures(), folder / f"of-{name}", options)
    yield from [
        "",
        "Milliseconds are those of the search alone, on one core, in pictures of the size that stands there; "
        f"the machine has {os.cpu_count()} cores and had a load of {os.getloadavg()[0]:.1f}.",
    ]
    if not options.masked:
        return
    yield from [
        "",
        "| product | pictures | defects caught | good parts rejected without mask | with mask "
        "| µs of the mask, each frame |",
        "|---|---|---|---|---|---|",
    ]
    for path in options.masked:
        yield from _mask_rows(path, folder / f"mask-{path.name}", options)
    yield from [
        "",
        "The mask is that of `inspectctl mask suggest`. The threshold is the one at which 95 % of the "
        "defective parts are caught, with the mask and without it. With dust: "
        f"{_DUST} specks and hairs are drawn into the background of every test picture, good and defective.",
    ]


def _products(options: argparse.Namespace, folder: Path) -> list[tuple[str, Callable[[], list[Picture]]]]:
    return [
        ("simulated line", lambda: _simulated(folder / "simulated", options.parts)),
        *((path.name, lambda path=path: _of(path)) for path in options.products),
    ]


def _print_times(options: argparse.Namespace, folder: Path) -> None:
    for name, read in _products(options, folder):
        learnt = [picture for picture in read() if picture.name.parts[0] == "train"][:TAUGHT]
        random = np.random.default_rng(options.seed)
        height, width = learnt[0].pixels.shape[:2]
        pictures = [_moved(learnt[0].pixels, 0, 0, 0)]
        for picture in learnt[1:]:
            dx, dy, turn = random.uniform(-1, 1, 3) * (SHIFT, SHIFT, TURN)
            pictures.append(_moved(picture.pixels, dx, dy, turn))
        reference = _taught(pictures, Roi(BORDER, BORDER, width, height))
        print(f"{name}: search {_speed(reference, pictures)}, ms, median (fastest)", flush=True)
    for side in (32, 64, 128):
        maps = np.random.default_rng(0).random((50, side, side), dtype=np.float32)
        print(f"mask of a map of {side}×{side} cells: {_mask_us(maps):.1f} µs, median")
    print(f"load {os.getloadavg()[0]:.1f}")


def _row(name: str, pictures: list[Picture], folder: Path, options: argparse.Namespace) -> str:
    height, width = pictures[0].pixels.shape[:2]
    roi = Roi(BORDER, BORDER, width, height)
    random = np.random.default_rng(options.seed)
    learnt = [picture for picture in pictures if picture.name.parts[0] == "train"]
    for picture in tqdm(pictures, desc=f"moving {name}", unit="picture"):
        still = picture is learnt[0]
        motion = (0.0, 0.0, 0.0) if still else tuple(random.uniform(-1, 1, 3) * (SHIFT, SHIFT, TURN))
        for kind, (dx, dy, turn) in (("unmoved", (0.0, 0.0, 0.0)), ("moved", motion)):
            _write(folder / kind / picture.name, _moved(picture.pixels, dx, dy, turn))
    taught = [read_image(folder / "moved" / picture.name) for picture in learnt[:TAUGHT]]
    reference = _taught(taught, roi)
    file = folder / "part.locate.png"
    write_reference(file, reference, taught[0])
    judged = {
        (kind, locate): _judged(
            folder / kind, folder / f"{kind}-{locate}.onnx", roi, file if locate else None, options.training
        )
        for kind in ("unmoved", "moved")
        for locate in (False, True)
    }
    found = [_auroc(judged[kind, locate]) for kind in ("unmoved", "moved") for locate in (False, True)]
    some = judged["moved", True]
    counts = f"{len(learnt)}, {int((~some.defective).sum())}, {int(some.defective.sum())}"
    lost = len(some.not_located)
    figures = " | ".join(f"{value:.3f}" for value in found)
    return f"| {name} | {counts} | {figures} | {lost} of {len(some.samples)} | {_speed(reference, taught)} |"


def _taught(pictures: Sequence[Frame], roi: Roi) -> Reference:
    """Teach the part: what the product's picture shows, without its outermost pixels."""
    part = Roi(roi.x + 4, roi.y + 4, roi.width - 8, roi.height - 8)
    return teach(pictures, part=part, turn=TURN + 8, shift=4 * SHIFT).reference


def _moved(pixels: Frame, dx: float, dy: float, turn: float) -> Frame:
    large = cv2.copyMakeBorder(pixels, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
    if (dx, dy, turn) == (0, 0, 0):
        return large.astype(np.uint8)
    height, width = large.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), -turn, 1.0)
    matrix[:, 2] += (dx, dy)
    # Lanczos, as a camera sees a part that lies turned no softer.
    return cv2.warpAffine(  # type: ignore[return-value]
        large, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE
    )


def _judged(
    data: Path, model: Path, roi: Roi | None, reference: Path | None, training: Sequence[str]
) -> Judged:
    options = ["--data", str(data), "--out", str(model), *training]
    if roi is not None:
        options += ["--roi", roi.option]
    if reference is not None:
        options += ["--locate", str(reference)]
    if not model.exists():
        train_model(options)
    return judge_samples(open_judge(model, None), open_data_set(data, None).test(), None, None)


def _auroc(judged: Judged) -> float:
    return auroc(judged.scores[~judged.defective], judged.scores[judged.defective])


def _speed(reference: Reference, pictures: Sequence[Frame]) -> str:
    """Time the search in pictures of 640×480, or as they are where the part would not fit into that."""
    height, width = pictures[0].shape[:2]
    locator = Locator(reference)
    took = []
    for _ in range(4):
        for picture in pictures[1:]:
            began = time.perf_counter()
            found = locator.locate(picture)
            took.append(1000 * (time.perf_counter() - began))
            assert isinstance(found, Place), found
    return f"{np.median(took):.2f} ({min(took):.2f}), {width}×{height}"


def _mask_rows(path: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    pictures = _of(path)
    learnt = [picture.pixels for picture in pictures if picture.name.parts[0] == "train"]
    size, regions = suggest(learnt, margin=min(learnt[0].shape[:2]) / 50)
    mask = folder / "part.mask.png"
    white = np.zeros(size, np.uint8)
    for region in regions:
        cv2.fillPoly(white, [np.array(region.polygon).round().astype(np.int32)], 255)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(mask), white)
    random = np.random.default_rng(options.seed)
    rows = []
    for kind in ("as they are", "with dust"):
        data = folder / kind.replace(" ", "-")
        for picture in pictures:
            pixels = picture.pixels.copy()
            if kind == "with dust" and picture.name.parts[0] == "test":
                _dusted(pixels, white == 0, random)
            _write(data / picture.name, pixels)
        model = folder / f"{data.name}.onnx"
        without = _judged(data, model, None, None, options.training)
        judge = open_judge(model, None)
        with_mask = judge_samples(judge, open_data_set(data, None).test(), None, None, mask)
        caught, rejected = _at_the_same_catch(without, with_mask)
        good = int((~without.defective).sum())
        rows.append(
            f"| {path.name} | {kind} | {caught} of {len(without.samples) - good} | {rejected[0]} of {good} | "
            f"{rejected[1]} of {good} | {_mask_us(without.maps):.0f} |"
        )
    return rows


def _dusted(pixels: Frame, background: NDArray[np.bool_], random: np.random.Generator) -> None:
    """Draw specks and hairs where there is no part."""
    rows, columns = np.nonzero(cv2.erode(background.astype(np.uint8), np.ones((15, 15), np.uint8)))
    for speck in range(_DUST):
        index = int(random.integers(len(rows)))
        x, y = int(columns[index]), int(rows[index])
        level = int(random.integers(90, 170))
        if speck % 2:
            cv2.circle(pixels, (x, y), int(random.integers(2, 4)), (level,) * 3, -1, cv2.LINE_AA)
        else:
            end = (x + int(random.integers(-12, 13)), y + int(random.integers(-12, 13)))
            cv2.line(pixels, (x, y), end, (level,) * 3, 1, cv2.LINE_AA)


def _at_the_same_catch(*judged: Judged) -> tuple[int, list[int]]:
    """Count rejected good parts where 95 % of the defective ones are caught."""
    defective = judged[0].defective
    caught = int(np.ceil(0.95 * np.count_nonzero(defective)))
    rejected = []
    for one in judged:
        threshold = np.sort(one.scores[defective])[::-1][caught - 1]
        rejected.append(int(np.count_nonzero(one.scores[~defective] >= threshold)))
    return caught, rejected


def _mask_us(maps: NDArray[np.float32]) -> float:
    """Time what a mask adds to a frame."""
    weights = np.ones(maps.shape[1:], np.float32)
    weights[: len(weights) // 4] = 0
    took = []
    for row in range(200):
        one = maps[row % len(maps)][None]
        began = time.perf_counter()
        weigh(one, weights)
        took.append(1e6 * (time.perf_counter() - began))
    return float(np.median(took))


def _simulated(folder: Path, parts: int) -> list[Picture]:
    for name, first, defects in (("train/good", 0, 0.0), ("test", 10_000, 0.5)):
        command = [sys.executable, "-m", "daemon.capture.drivers.simulated", "--seed", "1"]
        command += ["--images", str(folder / "all")]
        count = parts if name == "train/good" else 2 * parts
        done = ["--count", str(count), "--first", str(first), "--defects", str(defects)]
        subprocess.run([*command, *done, "--size", "480x320"], check=True, capture_output=True)
    pictures = []
    for file in sorted((folder / "all").rglob("*.png")):
        learnt = file.parent.name == "good" and int(file.stem) < 10_000
        place = Path("train/good") if learnt else Path("test") / file.parent.name
        pictures.append(Picture(place / file.name, read_image(file)))
    return pictures


def _of(product: Path) -> list[Picture]:
    def files() -> Iterator[Path]:
        yield from sorted((product / "train" / "good").iterdir())
        yield from sorted(file for file in (product / "test").rglob("*") if file.is_file())

    return [Picture(file.relative_to(product).with_suffix(".png"), read_image(file)) for file in files()]


def _write(path: Path, picture: Frame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


if __name__ == "__main__":
    main()
