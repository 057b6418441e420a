"""Which method knows the good parts at hand best, without looking at any real defect."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.detection import auroc
from models.method import GoodImages, Method
from models.synthetic_defects import with_defect

Maps = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]

HELD_OUT = 24
"""The most good images on which defects are painted."""
PAINTED = 3
"""Defects painted on each, one at a time."""
MARGIN = 0.02
"""By so much a method must be better than those named before it."""


def choose(methods: Mapping[str, Method], good: GoodImages, seed: int) -> tuple[str, str]:
    """Fit each method without some of the images, and see how well it tells these from painted defects.

    Args:
        methods: the first is kept unless another is better by ``MARGIN``.
        good: at least 5 images.
        seed: of the choice of images and of the painting.

    Returns:
        The name of the method, and why it is that.
    """
    good.check()
    random = np.random.default_rng(seed)
    order = random.permutation(len(good.images))
    count = max(1, min(HELD_OUT, len(order) // 5))
    held_out, rest = (
        good.images[torch.from_numpy(order[:count])],
        good.images[torch.from_numpy(order[count:])],
    )
    frames = held_out.flip(1).permute(0, 2, 3, 1).contiguous().numpy()
    painted = np.stack([with_defect(frame, random) for frame in frames for _ in range(PAINTED)])
    if len(rest) < 5:
        return next(iter(methods)), "too few images to compare methods on"
    part = replace(good, images=rest, pictures=len(rest))
    found = {
        name: _auroc(method.fit(part).maps, frames, painted)
        for name, method in tqdm(methods.items(), desc="comparing methods", unit="method")
    }
    best = next(iter(methods))
    for name, value in found.items():
        if value > found[best] + MARGIN:
            best = name
    listed = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    return best, f"by AUROC on {len(painted)} painted defects: {listed}"


def _auroc(maps: Maps, frames: NDArray[np.uint8], painted: NDArray[np.uint8]) -> float:
    good, bad = (
        {name: values.max((1, 2)) for name, values in maps(some).items()} for some in (frames, painted)
    )
    scores = np.zeros(len(frames) + len(painted))
    for name, peaks in good.items():
        scores += (np.concatenate([peaks, bad[name]]) - peaks.mean()) / max(float(peaks.std()), 1e-9)
    return auroc(scores[: len(frames)], scores[len(frames) :])
