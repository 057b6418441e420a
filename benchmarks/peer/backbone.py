"""A backbone as the teacher of the peer's model, whose networks are made for the paper's teacher."""

from typing import Any

import numpy as np
import openvino
import torch
from torch.nn import functional

STRIDE = 4
"""Pixels from cell to cell of the peer's student and autoencoder."""
BORDER = 4
"""Cells that their maps lack at each side, because they do not pad."""


class Backbone(torch.nn.Module):
    """Features of a backbone where the peer's networks have their cells.

    Args:
        path: ONNX, from N×3×H×W float, BGR from 0 to 255, to N×C×h×w.
        threads: to compute with.
    """

    def __init__(self, path: str, threads: int) -> None:
        super().__init__()
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(path, "CPU", settings)
        self.channels = int(self._compiled.output(0).partial_shape[1].get_length())

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give N×C×(H/4 - 8)×(W/4 - 8) of images, N×3×H×W, RGB from 0 to 1."""
        pictures = (255 * images.cpu()).flip(1).numpy()
        found = [self._compiled(picture[None])[0] for picture in pictures]
        features = torch.from_numpy(np.concatenate(found)).to(images.device)
        sides = [side // STRIDE for side in images.shape[2:]]
        cells = functional.interpolate(features, sides, mode="bilinear")
        return cells[..., BORDER:-BORDER, BORDER:-BORDER]
