"""Distillation of a teacher from a pretrained backbone over natural images (paper §4.1, appendix A)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from foundation.errors import InputError
from models.allocator import keep_freed_memory
from models.backbones.open import open_backbone
from models.efficientad.crops import Batch, Crops, Projection
from models.efficientad.networks import TEACHER_CHANNELS, ModelSize, normalised, pdn
from models.efficientad.train import has_bfloat16
from pictures.image_file import read_image
from pictures.image_folder import images_in

LEARNING_RATE = 1e-3
HELD_OUT = 0.05
"""Share of the images the teacher never trains on; its explained variance is measured on them."""
PROJECTION_CROPS = 256
MOST_CROPS = 256
"""Per step: more of them, at 512×512 for the backbone, take gigabytes and teach no more."""


@dataclass(frozen=True)
class Distilled:
    """A teacher and how good it is."""

    teacher: nn.Sequential
    explained_variance: float
    """Share of the projected features' variance it predicts on held-out images."""
    images: int
    """Number of images it trained on."""


def distil(
    source: str,
    folder: Path,
    size: ModelSize,
    *,
    steps: int,
    batch: int,
    seed: int,
    crops: int | None = None,
    layers: Sequence[str] | None = None,
) -> Distilled:
    """Train a padded PDN to predict the projected features of a backbone, by mean squared error.

    The teacher learns on the GPU where there is one; an ONNX backbone looks at the crops on the CPU.

    Args:
        source: of the backbone, see ``open_backbone``.
        folder: natural images.
        size: of the teacher.
        steps: of Adam; the learning rate falls along a cosine.
        batch: crops per step.
        seed: of weights, crops and rotation.
        crops: so many are drawn once and learnt from again and again; None draws new ones for each step, and
            then the backbone, the slower of both, sets the pace.
        layers: of the backbone, see ``open_backbone``.

    Raises:
        InputError: a file is missing or cannot be read, there are fewer than 20 images, or more crops per
            step than ``MOST_CROPS`` or all ``crops``.
    """
    if batch > MOST_CROPS:
        raise InputError(f"--batch {batch}: expected at most {MOST_CROPS} crops")
    files = images_in(folder)
    if crops is not None and batch > crops:
        raise InputError(f"--batch {batch}: is more than all --crops {crops}; expected at most {crops}")
    if len(files) < 20:
        raise InputError(f"{folder}: holds {len(files)} images; expected at least 20 to distil from")
    keep_freed_memory()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    cores = torch.get_num_threads()
    # Where both work at the same time, each has half of the cores.
    share = cores if crops else max(1, cores // 2)
    backbone = open_backbone(source, layers, share)
    for file in tqdm(files, desc="checking", unit="image"):  # hours later would be too late
        read_image(file)
    order = random.permutation(len(files))
    held_out, training = np.split(order, [max(1, round(HELD_OUT * len(files)))])
    drawn = Crops(files, backbone, random)

    channels = TEACHER_CHANNELS[size]
    sample = random.choice(training, PROJECTION_CROPS)
    parts = tqdm(np.array_split(sample, -(-PROJECTION_CROPS // batch)), desc="projecting", unit="batch")
    projection = fit_projection((drawn.of(indices)[1] for indices in parts), channels)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = pdn(size, channels, padding=True)
    teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.set_num_threads(share)
    batches_of = (
        drawn.kept(training, batch, projection, crops) if crops else drawn.fresh(training, batch, projection)
    )
    with batches_of as batches:
        learn(teacher, batches, steps, device)
    torch.set_num_threads(cores)

    teacher.eval().cpu()
    error = variance = 0.0
    with torch.inference_mode():
        for index in held_out:
            images, features = drawn.of(np.array([index, index]))
            target = projection(features)
            error += float((teacher(normalised(images.permute(0, 3, 1, 2))) - target).square().sum())
            variance += float(target.square().sum())
    return Distilled(teacher, 1 - error / variance, len(training))


def learn(teacher: nn.Sequential, source: Iterator[Batch], steps: int, device: torch.device) -> None:
    """Train a teacher on so many batches."""
    optimiser = torch.optim.Adam(teacher.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    half = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
    mean_loss = 1.0
    with tqdm(range(steps), desc="distilling", unit="step") as progress:
        for step, (images, target) in zip(progress, source, strict=False):
            planes = normalised(images.to(device).permute(0, 3, 1, 2))
            with half:
                prediction = teacher(planes.contiguous(memory_format=torch.channels_last))
            loss = (prediction.float() - target.to(device)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % 10 == 0:  # to look at it makes a GPU wait
                mean_loss += 0.2 * (float(loss.detach()) - mean_loss)
                progress.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)


def fit_projection(batches: Iterable[Tensor], channels: int) -> Projection:
    """Fit a projection to batches of features, each N×C×h×w.

    Raises:
        InputError: the backbone has fewer features than the teacher has channels.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for features in batches:
        rows = features.movedim(1, -1).flatten(0, -2).double()
        count += len(rows)
        total = total + rows.sum(0)
        products = products + rows.T @ rows
    if len(total) < channels:
        raise InputError(f"the backbone gives {len(total)} features; expected at least {channels}")
    mean = total / count
    variances, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
    rotation, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
    scale = (variances[-channels:].sum() / channels).sqrt()
    return Projection(mean.float(), (vectors[:, -channels:] @ rotation / scale).float())
