"""What the parts of a run share: options, models and engines that are made once, the peer's environment."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from inspection import BIN
from numpy.typing import NDArray
from peer.client import Peer

from comparison.models import draw_frames, write_frames, write_untrained
from engine_runtime.engine import Engine
from engine_runtime.open import open_engine
from pictures.frames import Size

if TYPE_CHECKING:  # it imports torch
    from engine_runtime.manifest import Precision
    from models.efficientad.networks import ModelSize

_SEARCH_S: "dict[ModelSize, int]" = {"xs": 30, "s": 60, "m": 75}
"""How long build-engine may search for the fastest engine."""


@dataclass
class Session:
    """One run of the benchmark.

    Attributes:
        folder: for models, engines and frames of this run.
        peer_python: of the peer's environment.
        threads: on either side.
        quick: a lap or two of everything, to see that it runs.
        fixed_laps: laps of every comparison; each has its own number when None.
        product: data set from which part h learns.
        exported: folder → the peer's exported models in it, by runtime: they are made once.
    """

    folder: Path
    peer_python: Path
    threads: int
    quick: bool
    fixed_laps: int | None
    product: Path | None = None
    exported: dict[Path, dict[str, str]] = field(default_factory=dict)

    def laps(self, usual: int) -> int:
        """Give the number of laps of a comparison that usually has so many."""
        return self.fixed_laps or (min(usual, 2) if self.quick else usual)

    def peer(self) -> Peer:
        """Start a child process of the peer."""
        return Peer(self.peer_python, self.folder, self.threads)

    def weights(self, size: "ModelSize", side: int) -> Path:
        """Give the state dict of the untrained model of a size; beside it lies the ONNX file."""
        path = self.folder / f"{size}-{side}.pt"
        if not path.exists():
            write_untrained(path, path.with_suffix(".onnx"), size, Size(side, side))
        return path

    def engine(self, size: "ModelSize", side: int, max_batch: int, precision: "Precision" = "fp32") -> Path:
        """Give the engine that build-engine chooses for a model, built once."""
        path = self.folder / f"{size}-{side}-{max_batch}-{precision}.engine"
        if not path.exists():
            graph, image = self.weights(size, side).with_suffix(".onnx"), Size(side, side)
            limit = 10 if self.quick else _SEARCH_S[size]
            if precision == "int8":
                frames = ("--good", write_frames(self.folder / f"good-{side}", image, 16))
            else:
                frames = ("--parity-images", write_frames(self.folder / f"parity-{side}", image, 2))
            subprocess.run(
                [
                    *(BIN / "build-engine", graph, "-o", path, "--precision", precision, *frames),
                    *("--max-batch", str(max_batch), "--threads", str(self.threads)),
                    *("--time-limit", str(limit)),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=sys.stderr,
            )
        return path

    def frames(self, side: int, count: int) -> tuple[NDArray[np.uint8], Path]:
        """Draw frames, N×H×W×3 uint8 BGR, and give the file from which the peer reads them, too."""
        path = self.folder / f"frames-{side}-{count}.npy"
        stack = draw_frames(Size(side, side), count)
        np.save(path, stack)
        return stack, path

    def open(self, engine: Path) -> Engine:
        """Open an engine with the threads that either side has."""
        return open_engine(engine, threads=self.threads)

    @property
    def max_batch(self) -> int:
        """Give the largest batch of the engines that several parts share."""
        return 2 if self.quick else 8

    def seconds(self, usual: float) -> float:
        """Shorten what lasts so long in a full run, seconds or frames."""
        return usual / 4 if self.quick else usual

    def fresh_folder(self, prefix: str) -> Path:
        """Make an empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.folder))
