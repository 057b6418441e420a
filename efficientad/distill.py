"""Distillation of a teacher from a pretrained backbone over natural images (paper §4.1, appendix A)."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from efficientad.backbone import Backbone
from efficientad.networks import TEACHER_CHANNELS, ModelSize, normalised, pdn
from efficientad.train import has_bfloat16
from engine_runtime.errors import InputError
from engine_runtime.frames import Frame, images_in, read_image

CROP = 256
"""Side of the teacher's input; the backbone sees the same crop at twice the side, so both maps are 64×64."""
LEAST_CROP = 0.3
"""Smallest crop, as a share of an image's short side."""
GREY = 0.1
"""Share of crops without colour, as in the paper."""
LEARNING_RATE = 1e-3
HELD_OUT = 0.05
"""Share of the images the teacher never trains on; its explained variance is measured on them."""
PROJECTION_CROPS = 256


@dataclass(frozen=True)
class Projection:
    """From the backbone's features to a teacher's channels.

    The leading principal components in their natural scale, because the trailing ones are noise to a small
    network, then turned at random, because a student's loss should not hang on a few channels, and
    scaled by one factor so that a channel's mean variance is 1.
    """

    mean: Tensor
    """C float32."""
    matrix: Tensor
    """C×channels float32."""

    def __call__(self, features: Tensor) -> Tensor:
        """Map N×C×h×w to N×channels×h×w."""
        return torch.einsum("nchw,cd->ndhw", features - self.mean[:, None, None], self.matrix)


@dataclass(frozen=True)
class Distilled:
    """A teacher and how good it is."""

    teacher: nn.Sequential
    explained_variance: float
    """Share of the projected features' variance it predicts on held-out images."""
    images: int
    """Number of images it trained on."""


def distil(
    backbone_file: Path, folder: Path, size: ModelSize, *, steps: int, batch: int, seed: int
) -> Distilled:
    """Train a padded PDN to predict the projected features of a backbone, by mean squared error.

    Args:
        backbone_file: quantised ONNX classifier, see ``Backbone``.
        folder: natural images.
        size: of the teacher.
        steps: of Adam; the learning rate falls along a cosine.
        batch: crops per step.
        seed: of weights, crops and rotation.

    Raises:
        InputError: a file is missing or cannot be read, or there are fewer than 20 images.
    """
    files = images_in(folder)
    if len(files) < 20:
        raise InputError(f"{folder}: holds {len(files)} images; expected at least 20 to distil from")
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    cores = torch.get_num_threads()
    backbone = Backbone(backbone_file, max(1, cores // 2))
    pictures = [read_image(file) for file in tqdm(files, desc="reading", unit="image")]
    order = random.permutation(len(pictures))
    held_out, training = np.split(order, [max(1, round(HELD_OUT * len(pictures)))])

    def crops(indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        pairs = [crop(pictures[index], random) for index in indices]
        small = torch.from_numpy(np.stack([pair[0] for pair in pairs]))
        features, _ = backbone(np.stack([pair[1] for pair in pairs]))
        return normalised(small.permute(0, 3, 1, 2)), torch.from_numpy(features)

    channels = TEACHER_CHANNELS[size]
    sample = random.choice(training, PROJECTION_CROPS)
    batches = tqdm(np.array_split(sample, PROJECTION_CROPS // batch), desc="projecting", unit="batch")
    projection = fit_projection((crops(indices)[1] for indices in batches), channels)

    teacher = pdn(size, channels, padding=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(teacher.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    mean_loss = 1.0
    torch.set_num_threads(max(1, cores // 2))
    progress = tqdm(range(steps), desc=f"distilling {size}", unit="step")
    # The backbone looks at the next crops while the teacher learns from these: half of the cores each.
    with ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(lambda: crops(random.choice(training, batch)))
        for _ in progress:
            images, features = upcoming.result()
            upcoming = ahead.submit(lambda: crops(random.choice(training, batch)))
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu"))):
                prediction = teacher(images.contiguous(memory_format=torch.channels_last))
            loss = (prediction.float() - projection(features)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            mean_loss += 0.02 * (float(loss.detach()) - mean_loss)
            progress.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)

    torch.set_num_threads(cores)
    teacher.eval()
    error = variance = 0.0
    with torch.inference_mode():
        for index in held_out:
            images, features = crops(np.array([index, index]))
            target = projection(features)
            error += float((teacher(images) - target).square().sum())
            variance += float(target.square().sum())
    return Distilled(teacher, 1 - error / variance, len(training))


def crop(picture: Frame, random: np.random.Generator) -> tuple[Frame, Frame]:
    """Cut a random square, perhaps mirrored or grey: 256×256 and 512×512 uint8, RGB."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * random.uniform(LEAST_CROP, 1))
    y, x = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    square: Any = picture[y : y + side, x : x + side, ::-1]
    if random.random() < 0.5:
        square = square[:, ::-1]
    large: Any = cv2.resize(np.ascontiguousarray(square), (2 * CROP, 2 * CROP), interpolation=cv2.INTER_CUBIC)
    if random.random() < GREY:
        large = cv2.cvtColor(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.resize(large, (CROP, CROP), interpolation=cv2.INTER_AREA), large


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
