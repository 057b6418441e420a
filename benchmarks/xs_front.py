"""What XS should look like: time against accuracy, for candidates that differ in nothing else.

    python benchmarks/xs_front.py --backbone FILE --natural DIR --data DIR [DIR …] --out FOLDER
        --json docs/benchmarks/xs_front.json --markdown docs/benchmarks/xs_front.md

Each candidate gets a teacher, distilled on the same crops, is trained on each product with it, and judges the
test images. The times are those of untrained engines of all candidates in turns, as OpenVINO runs the graph
as it stands. What is finished lies in FOLDER, so that a run that was cut off goes on. The plot is written
beside the markdown.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch
from comparison.models import draw_frames, write_untrained
from comparison.pairing import Spread, take_turns, timed
from detection.command_line import as_shown
from detection.ours import SIZE
from inspection import command
from torch import nn

from engine_runtime.engine import uncalibrated
from engine_runtime.open import open_engine
from foundation.files import write_whole
from models import training_images
from models.backbones.onnx_file import OnnxBackbone
from models.datasets.open import open_data_set
from models.efficientad import networks
from models.efficientad.checkpoint import Run
from models.efficientad.crops import Crops
from models.efficientad.distill import PROJECTION_CROPS, fit_projection, learn
from models.efficientad.train import train
from models.evaluation.evaluate import evaluate
from models.evaluation.judge import CheckpointJudge
from pictures.image_folder import images_in

BATCH = 8
CHANNELS = networks.TEACHER_CHANNELS["xs"]


class Strided(nn.Conv2d):
    """A convolution in place of one with a mean after it, and with the padding of both."""

    border: tuple[int, int, int, int]
    """Left, right, top, bottom."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(images, self.border) if any(self.border) else images
        return super().forward(padded)


class Candidate(NamedTuple):
    """An XS; all have the receptive field and the map of the others."""

    first: int
    """Channels of the first convolution, on maps of the image's size."""
    inner: int
    """Channels inside."""
    strided: bool = False
    """The first convolution is 5×5 with stride 2, in place of 4×4 and a mean of 2×2."""
    wide_third: bool = False
    """The third convolution is 4×4 and the last 3×3, instead of the other way round."""
    autoencoder: tuple[int, int] = networks.AUTOENCODER_WIDTHS["xs"]
    """Channels of its first two convolutions, and of the others."""

    @property
    def name(self) -> str:
        widths = f"{self.first}-{self.inner}"
        narrow, wide = self.autoencoder
        if self.autoencoder != networks.AUTOENCODER_WIDTHS["xs"]:
            widths += f", autoencoder {narrow}-{wide}"
        return widths + ", strided" * self.strided + ", 4x4 before 3x3" * self.wide_third

    @property
    def file_name(self) -> str:
        return self.name.replace(", ", "-").replace(" ", "-")

    def pdn(self, size: networks.ModelSize, channels: int, padding: bool = False) -> nn.Sequential:
        """Build its patch description network, in place of ``networks.pdn``."""
        layers = list(networks.pdn(size, channels, padding))
        if self.wide_third:
            layers[6] = nn.Conv2d(self.inner, self.inner, 4)
            layers[8] = nn.Conv2d(self.inner, channels, 3, padding=int(padding))
        if self.strided:
            layers[0] = strided = Strided(3, self.first, 5, stride=2)
            strided.border = (4, 3, 4, 3) if padding else (0, 0, 0, 0)
            del layers[2]
        return nn.Sequential(*layers)

    @contextmanager
    def as_xs(self) -> Iterator[None]:
        """Let ``efficientad`` build XS like this."""
        with (
            patch.dict(networks.WIDTHS, xs=(self.first, self.inner)),
            patch.dict(networks.AUTOENCODER_WIDTHS, xs=self.autoencoder),
            patch("models.efficientad.model.pdn", self.pdn),
        ):
            yield


CANDIDATES = (
    Candidate(32, 64),
    Candidate(24, 48),
    Candidate(16, 64),
    Candidate(16, 48),
    Candidate(16, 64, strided=True),
    Candidate(16, 64, wide_third=True),
    Candidate(16, 64, autoencoder=(8, 16)),
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", type=Path, required=True, metavar="FILE")
    parser.add_argument("--natural", type=Path, required=True, metavar="DIR", help="to distil from")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one product each")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--crops", type=int, default=3000, help="drawn once (default: %(default)s)")
    parser.add_argument("--distill-steps", type=int, default=600, help="(default: %(default)s)")
    parser.add_argument("--train-steps", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    distil_all(options)
    found = {
        candidate.name: {data.name: judged(candidate, data, options) for data in options.data}
        for candidate in CANDIDATES
    }
    times = measured_ms(options.out)
    rows = [
        {
            "candidate": name,
            "ms": Spread.of(times[name]).median,
            "fastest_ms": min(times[name]),
            "auroc": aurocs,
        }
        for name, aurocs in found.items()
    ]
    content = {
        "command": as_shown("xs_front.py", sys.argv[1:]),
        "crops": options.crops,
        "distill_steps": options.distill_steps,
        "train_steps": options.train_steps,
        "rows": rows,
    }
    page = as_markdown(content, options.markdown.with_suffix(".png").name if options.markdown else None)
    print(page)
    if options.json:
        write_whole(options.json, (json.dumps(content, indent=2) + "\n").encode())
    if options.markdown:
        write_whole(options.markdown, page.encode())
        write_whole(options.markdown.with_suffix(".png"), plot(rows))


def distil_all(options: argparse.Namespace) -> None:
    """Distil a teacher for each candidate that has none yet."""
    missing = [candidate for candidate in CANDIDATES if not teacher_file(options.out, candidate).exists()]
    if not missing:
        return
    random = np.random.default_rng(0)
    files = images_in(options.natural)
    crops = Crops(files, OnnxBackbone(options.backbone, None, torch.get_num_threads()), random)
    indices = np.arange(len(files))
    torch.manual_seed(0)
    samples = np.array_split(random.choice(indices, PROJECTION_CROPS), PROJECTION_CROPS // BATCH)
    projection = fit_projection((crops.of(some)[1] for some in samples), CHANNELS)
    with crops.kept(indices, BATCH, projection, options.crops) as batches:
        for candidate in missing:
            with candidate.as_xs():
                torch.manual_seed(0)
                teacher = candidate.pdn("xs", CHANNELS, padding=True)
                teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                learn(teacher, batches, options.distill_steps, torch.device("cpu"))
            torch.save(teacher.state_dict(), teacher_file(options.out, candidate))


def judged(candidate: Candidate, data: Path, options: argparse.Namespace) -> float:
    """Train a candidate on a product and give the image AUROC of its test images."""
    file = options.out / f"{candidate.file_name}-{data.name}.json"
    if file.exists():
        return float(json.loads(file.read_text()))
    data_set = open_data_set(data)
    split = training_images.load(data_set, SIZE, None, 0)
    run = Run("xs", SIZE, None, options.train_steps, 1, 0, split.digest, candidate.name, None, "")
    model = options.out / f"{candidate.file_name}-{data.name}.pt"
    with candidate.as_xs():
        train(
            run,
            torch.load(teacher_file(options.out, candidate), weights_only=True),
            training=split.training,
            validation=split.validation,
            penalty=None,
            out=model,
            checkpoint_every=options.train_steps,
        )
        found = evaluate(CheckpointJudge(model), data_set, draws=0).overall.image_auroc.value
    write_whole(file, json.dumps(found).encode())
    return found


def measured_ms(folder: Path) -> dict[str, list[float]]:
    """Time a frame in untrained engines of all candidates, in turns."""
    sides = {}
    frame = draw_frames(SIZE, 1)[0]
    for candidate in CANDIDATES:
        graph = folder / f"{candidate.file_name}.onnx"
        with candidate.as_xs():
            write_untrained(graph.with_suffix(".pt"), graph, "xs", SIZE)
        command("build-engine", graph, "--fast", "--max-batch", 1)
        engine = open_engine(graph.with_suffix(".engine"))
        sides[candidate.name] = partial(
            timed, partial(engine.infer, [frame], uncalibrated(engine.manifest.maps))
        )
    return take_turns(sides, 40, "timing", warm_up=3)


def teacher_file(folder: Path, candidate: Candidate) -> Path:
    return folder / f"{candidate.file_name}-teacher.pt"


def as_markdown(content: Mapping[str, Any], picture: str | None) -> str:
    """Lay out what was found."""
    data = list(content["rows"][0]["auroc"])
    lines = [
        "# What XS should look like",
        "",
        f"Written by `{content['command']}`.",
        "",
        "Channels after the first convolution and inside. Strided: the first convolution is 5×5 with stride"
        " 2, in place of 4×4 and a mean of 2×2. Autoencoder: channels of its first two convolutions and of"
        " the others, else 16-32. 4x4 before 3x3: the last two convolutions have one another's kernels. All"
        " have the same receptive field of 33×33, the same map, and 96 features. Every candidate: a"
        f" teacher distilled for {content['distill_steps']} steps of {BATCH} from the same {content['crops']}"
        f" crops, then {content['train_steps']} training steps on each product, one seed, so that small"
        " differences mean nothing. Milliseconds per frame at 256×256, the median of 40 turns of all"
        " candidates, with OpenVINO in float32 as the graph stands.",
        "",
        f"| XS | ms | {' | '.join(data)} | mean image AUROC |",
        f"|---|{' --: |' * (len(data) + 2)}",
    ]
    for row in content["rows"]:
        values = [row["auroc"][name] for name in data]
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {row['candidate']} | {row['ms']:.1f} | {cells} | {np.mean(values):.3f} |")
    if picture:
        lines += ["", f"![Mean image AUROC over milliseconds per frame]({picture})"]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw mean image AUROC over milliseconds, as a PNG file."""
    width, height, margin = 640, 400, 60
    canvas = np.full((height, width, 3), 255, np.uint8)
    x = np.array([row["ms"] for row in rows])
    y = np.array([np.mean(list(row["auroc"].values())) for row in rows])
    low_x, high_x = float(np.floor(x.min() - 1)), float(np.ceil(x.max() + 1))
    low_y, high_y = float(y.min() - 0.002), float(y.max() + 0.002)

    def place(at_x: float, at_y: float) -> tuple[int, int]:
        right = margin + (at_x - low_x) / (high_x - low_x) * (width - 2 * margin)
        down = height - margin - (at_y - low_y) / (high_y - low_y) * (height - 2 * margin)
        return round(right), round(down)

    def text(words: str, at: tuple[int, int], size: float = 0.45) -> None:
        cv2.putText(canvas, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA)

    cv2.rectangle(canvas, (margin, margin), (width - margin, height - margin), (160, 160, 160), 1)
    for mark in np.linspace(low_y, high_y, 5):
        text(f"{mark:.3f}", (8, place(low_x, mark)[1] + 4))
    for mark in np.arange(low_x, high_x + 1, 2):
        text(f"{mark:.0f}", (place(mark, low_y)[0] - 6, height - margin + 18))
    text("ms per frame", (width // 2 - 50, height - 12))
    text("mean image AUROC", (margin, margin - 14))
    for row, at_x, at_y in zip(rows, x, y, strict=True):
        point = place(at_x, at_y)
        cv2.circle(canvas, point, 5, (160, 80, 20), -1, cv2.LINE_AA)
        longer = 9 + 7 * len(row["candidate"]) > width - margin - point[0]
        left = point[0] - 9 - 8 * len(row["candidate"]) if longer else point[0] + 9
        text(row["candidate"], (left, point[1] - 8))
    return cv2.imencode(".png", canvas)[1].tobytes()


if __name__ == "__main__":
    main()
