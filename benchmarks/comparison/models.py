"""Untrained models and drawn frames: weights do not change how long anything takes.

The weights are drawn so that features have the magnitude of a trained model's; then differences between two
sides' scores mean something.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Size

if TYPE_CHECKING:  # it imports torch
    from models.efficientad.networks import ModelSize


def write_untrained(weights: Path, graph: Path, size: "ModelSize", image: Size) -> None:
    """Draw a model that computes what the paper does, and so the peer, and write it twice.

    Args:
        weights: file of torch for the state dict, from which the peer takes its weights.
        graph: file for the ONNX export, from which ``build-engine`` builds.
        size: of the model.
        image: height and width it takes, pixels.
    """
    from importlib.metadata import version

    import torch

    from models.efficientad.checkpoint import Run
    from models.efficientad.export import export
    from models.efficientad.model import EfficientAd

    torch.manual_seed(0)
    model = EfficientAd(size, image, position_aware=False, with_density=False, with_whole=False).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            # Features then neither vanish nor explode from layer to layer.
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    torch.nn.init.normal_(model.teacher_mean, 0, 0.1)
    torch.nn.init.uniform_(model.teacher_std, 0.8, 1.25)
    torch.save(model.state_dict(), weights)
    digests = ("0" * 64, "0" * 64, None)
    run = Run(
        size,
        image,
        None,
        1,
        1,
        0,
        *digests,
        version("inspectd"),
        position_aware=False,
        density=False,
        whole=False,
    )
    export(graph, run, model)


def draw_frames(image: Size, count: int) -> NDArray[np.uint8]:
    """Draw smooth pictures, N×H×W×3 BGR, so that the score is not that of noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, (image.width, image.height)) for frame in coarse]).astype(np.uint8)


def write_frames(folder: Path, image: Size, count: int) -> Path:
    """Write drawn frames, on which engines are proven or find their ranges, and give their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(draw_frames(image, count)):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder
