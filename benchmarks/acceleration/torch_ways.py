"""The same model in torch, in half precision, as others run it on a GPU; every way copies in and out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.efficientad.model import EfficientAd
from models.efficientad.networks import normalised
from pictures.frames import Size

if TYPE_CHECKING:
    from models.efficientad.networks import ModelSize

Way = Callable[[], NDArray[np.float32]]
"""Judges a batch once and gives its scores, N."""


class HalfModel(nn.Module):
    """An uncalibrated model whose networks compute in half.

    Args:
        weights: state dict, file of torch.
        size: of the model.
        side: of its square frames, pixels.
    """

    def __init__(self, weights: Path, size: "ModelSize", side: int, device: torch.device) -> None:
        super().__init__()
        self.model = EfficientAd(
            size, Size(side, side), position_aware=False, with_density=False, with_whole=False
        ).eval()
        self.model.load_state_dict(torch.load(weights, weights_only=True))
        # Beforehand: ``normalised`` copies constants to the GPU each time, which no graph can capture.
        black, white = (normalised(torch.full((1, 3, 1, 1), value)) for value in (0.0, 255.0))
        self.shift, self.scale = black.to(device), ((white - black) / 255).to(device)
        self.model.half().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Give scores, N, and anomaly maps, N×h×w, of N×H×W×3 uint8 frames, BGR."""
        images = (frames.permute(0, 3, 1, 2).flip(1) * self.scale + self.shift).half()
        local, large = self.model.maps(images.contiguous(memory_format=torch.channels_last))
        anomaly = (local.float() + large.float()) / 2
        return anomaly.amax((1, 2)), anomaly


def published(model: nn.Module, frames: NDArray[np.uint8], device: torch.device) -> Way:
    """Run it as the published benchmark does: layer by layer, frames from ordinary memory, maps back."""

    @torch.inference_mode()
    def way() -> NDArray[np.float32]:
        score, anomaly = model(torch.from_numpy(frames).to(device))
        anomaly.cpu()
        return score.cpu().numpy()

    return way


def compiled(model: HalfModel, frames: NDArray[np.uint8], device: torch.device) -> Way:
    """Let torch.compile fuse what lies between the convolutions."""
    torch.compiler.reset()  # it would give up, and say nothing, after eight shapes
    return published(torch.compile(model, dynamic=False), frames, device)


def captured(model: HalfModel, frames: NDArray[np.uint8], device: torch.device) -> Way:
    """Launch all of it as one CUDA graph, from and to page-locked memory."""
    given = torch.from_numpy(frames).pin_memory()
    inside = given.to(device)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):  # torch wants to have run before
                model(inside)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            found = model(inside)
        back = [result.cpu().pin_memory() for result in found]

    @torch.inference_mode()
    def way() -> NDArray[np.float32]:
        with torch.cuda.stream(stream):
            inside.copy_(given, non_blocking=True)
            graph.replay()
            for target, result in zip(back, found, strict=True):
                target.copy_(result, non_blocking=True)
        stream.synchronize()
        return back[0].numpy()

    return way


def product_flops(side: int = 8192, repetitions: int = 20) -> float:
    """Measure the GPU's peak: operations per second of a matrix product in half."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    best = 0.0
    for _ in range(repetitions):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.mm(a, b)
        end.record()
        torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (start.elapsed_time(end) / 1e3))
    return best


def model_flops(model: HalfModel, side: int) -> float:
    """Count the operations that one frame takes, a multiplication and an addition each for one."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros((1, side, side, 3), dtype=torch.uint8, device=device))
    return float(counter.get_total_flops())
