"""Before anything is timed: both sides have the same weights and compute the same maps."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from peer.client import Peer
from tqdm import tqdm

from comparison.session import Session
from engine_runtime.engine import ANOMALY_MAP, uncalibrated

if TYPE_CHECKING:  # it imports torch
    from models.efficientad.networks import ModelSize

TOLERANCE = 1e-4
"""Largest difference between two sides that compute in float32, relative to the largest value."""

_FRAMES = 1


class NotTheSame(Exception):
    """The two sides do not compute the same, so there is nothing to compare."""


class SamePeer:
    """The peer with the weights of one of our engines, seen to compute the same.

    Args:
        session: of the run.
        peer: keeps the model.
        size: s or m.
        side: of the image, pixels.
        engine: ours, built from the same weights.

    Raises:
        NotTheSame: the peer's local map, or the global one, differs from ours by more than ``TOLERANCE``. At
            sides other than 256 only the local maps are compared: there our autoencoder and the peer's have
            another kernel in one layer, and the peer keeps its own weights for it.
    """

    def __init__(self, session: Session, peer: Peer, size: "ModelSize", side: int, engine: Path) -> None:
        self._session, self._peer, self._side = session, peer, side
        self._folder = session.folder / f"peer-{size}-{side}"
        stack, self._frames = session.frames(side, _FRAMES)
        opened = session.open(engine)
        manifest = opened.manifest
        self._ours = opened.infer(list(stack), uncalibrated(manifest.maps), manifest.outputs)
        opened.close()
        self._ceiling = 4 * float(self._ours[ANOMALY_MAP].max())
        loaded = peer.ask(
            "load",
            weights=str(session.weights(size, side)),
            size=size,
            side=side,
            ceiling=self._ceiling,
            threads=session.threads,
        )
        self.whole = not loaded["kept"]
        """Every layer has our weights."""
        out = session.folder / "raw.npz"
        peer.ask("raw_maps", frames=str(self._frames), out=str(out))
        theirs = np.load(out)
        for name in ("local", "global") if self.whole else ("local",):
            found = difference(theirs[name], self._ours[manifest.maps[name]])
            if found > TOLERANCE:
                raise NotTheSame(
                    f"{size} at {side}²: the {name} maps differ by {found:.1e} of the largest value"
                )

    def export(self, *, free: bool = False) -> dict[str, str]:
        """Export the model with the peer's own methods.

        Args:
            free: leave the height and width of the input free, so that the graph itself resizes frames.

        Returns:
            Runtime → path.
        """
        folder = self._folder / ("free" if free else "fixed")
        if folder not in self._session.exported:
            text = "exporting the peer's model, half a minute"
            with tqdm(total=1, desc=text, leave=False, disable=None) as bar:
                self._session.exported[folder] = self._peer.ask(
                    "export", folder=str(folder), side=None if free else self._side
                )
                bar.update()
        return self._session.exported[folder]

    def difference(self, name: str) -> float:
        """Say how far a model that the peer opened is from ours, post-processing undone, map and score.

        Args:
            name: of the opened model.

        Raises:
            NotTheSame: the peer's map has another size, so it does not judge the image at this size.
        """
        out = self._session.folder / "out.npz"
        self._peer.ask("infer", name=name, frames=str(self._frames), out=str(out))
        theirs = np.load(out)
        expected = enlarged(self._ours[ANOMALY_MAP])
        if theirs["map"].shape != expected.shape:
            raise NotTheSame(f"{name}: its map is {theirs['map'].shape}, expected {expected.shape}")
        scores = expected.max((1, 2))
        return max(
            difference(theirs["map"] * self._ceiling, expected),
            difference(theirs["score"] * self._ceiling, scores),
        )


def enlarged(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad maps of the network's own resolution by four cells and enlarge them fourfold, as the peer does.

    Args:
        maps: N×h×w.

    Returns:
        N×4(h + 8)×4(w + 8).
    """
    padded = np.pad(maps, ((0, 0), (4, 4), (4, 4)))
    height, width = (4 * cells for cells in padded.shape[1:])
    # Half-pixel centres and a repeated border, which torch calls bilinear.
    layers = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in padded]
    return np.stack(layers).astype(np.float32)


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Give the largest difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
