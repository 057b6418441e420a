"""anomalib's own model in torch, in half precision, with the weights of ours, in its own process."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from comparison.equality import NotTheSame, difference, enlarged
from comparison.pairing import Turn
from comparison.session import Session
from numpy.typing import NDArray
from peer.client import Peer

from models.efficientad.model import EfficientAd
from models.efficientad.networks import normalised
from pictures.frames import Size

if TYPE_CHECKING:
    from models.efficientad.networks import ModelSize

NAME = "anomalib, torch"
TOLERANCE = 0.03
"""Largest difference of a map from ours in single precision, as a share of the largest value."""


class HalfPeer:
    """anomalib's model as its ``precision="16-mixed"`` runs it; images come in and maps go out.

    Args:
        session: of the run.
        peer: keeps the model.
        size: s or m.
        side: of the frames, pixels.
        device: of torch.

    Raises:
        NotTheSame: it computes something else than our model with the same weights.
    """

    def __init__(self, session: Session, peer: Peer, size: "ModelSize", side: int, device: str) -> None:
        self._session, self._peer, self._side = session, peer, side
        weights, threads = session.weights(size, side), session.threads
        peer.ask("load", weights=str(weights), size=size, side=side, ceiling=1.0, threads=threads)
        peer.ask("open", name=NAME, runtime="torch_half", threads=threads, device=device)
        stack, frames = session.frames(side, 1)
        out = session.folder / "half.npz"
        peer.ask("infer", name=NAME, frames=str(frames), out=str(out))
        apart = difference(np.load(out)["map"], enlarged(_anomaly_maps(weights, size, side, stack)))
        if not apart <= TOLERANCE:
            raise NotTheSame(f"{NAME}, {size.upper()}: its map differs from ours by {apart:.1%}")

    def turn(self, batch: int, least_ms: float) -> Turn:
        """Make a turn that repeats a batch for so long and gives the milliseconds of one."""
        _, frames = self._session.frames(self._side, batch)
        once = min(self._infer(frames, 1) for _ in range(3))
        count = max(1, round(least_ms / once))
        return lambda: self._infer(frames, count)

    def _infer(self, frames: Path, repetitions: int) -> float:
        return float(self._peer.ask("infer", name=NAME, frames=str(frames), repetitions=repetitions)["ms"])


def _anomaly_maps(
    weights: Path, size: "ModelSize", side: int, frames: NDArray[np.uint8]
) -> NDArray[np.float32]:
    model = EfficientAd(
        size, Size(side, side), position_aware=False, with_density=False, with_whole=False
    ).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        local, large = model.maps(normalised(torch.from_numpy(frames).permute(0, 3, 1, 2).flip(1)))
    return ((local + large) / 2).numpy()
