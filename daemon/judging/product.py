"""What parts are judged by: an engine and the calibration that was made on it."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.calibration_file import Calibration
from engine_runtime.engine import Engine, Quantiles
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from engine_runtime.signatures import TrustedKeys
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import EngineRefused
from pictures.frames import Frame
from pictures.heatmap import MapGeometry
from pictures.tile_merge import TileMerge

_log = logging.getLogger("inspectd")


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """One product of a line, loaded.

    Compared by identity: after a reload the same name may stand for another engine or threshold, and a
    frame is judged by what held when it was captured.
    """

    name: str | None
    """None when the config names no products."""
    engine: Path
    calibration: Path
    calibration_sha256: str
    """Of the bytes that were read."""
    manifest: Manifest
    trusted: TrustedKeys | None
    """One of these keys must have signed engine and calibration; None where its origin does not matter."""
    threads: int | None
    max_batch: int
    calibrated: Calibration
    threshold: float
    quantiles: Quantiles
    geometry: MapGeometry
    """How anomaly maps lie over what is seen of a picture: the engine's input, or with tiles the region."""
    weights: NDArray[np.float32] | None = None
    """What a mask gives the cells of the maps, h×w, 0 where it does not look; None without one."""
    merge: TileMerge | None = None
    """How the maps of a picture's tiles become one; None when a picture is one frame."""
    score_parts: bool = False
    """Whether verdicts say what each map has in the score."""

    @property
    def engine_name(self) -> str:
        """Name of the model and the start of the engine's SHA-256, as health tells it."""
        return f"{self.manifest.model} {self.manifest.payload_sha256[:12]}"

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What makes two loaded products the same."""
        return (
            self.name,
            self.engine,
            self.manifest.model_dump_json(),
            None if self.trusted is None else self.trusted.fingerprint,
            self.threads,
            self.max_batch,
            self.calibrated.model_dump_json(),
            None if self.weights is None else self.weights.tobytes(),
            None if self.merge is None else (self.merge.grid.tiles, self.merge.grid.region),
            self.score_parts,
        )

    def picture(self, frame: Frame) -> Frame:
        """Give what the engine saw of a picture as one picture: the tiles put together, where there are any.

        Args:
            frame: from a slot, H×W×3 or tiles×H×W×3 uint8, BGR.

        Returns:
            H×W×3 uint8, BGR.
        """
        return frame if self.merge is None else self.merge.grid.assemble(frame)

    def open(self) -> Engine:
        """Open the engine.

        Raises:
            EngineRefused: it does not open, or the file holds another engine by now.
        """
        engine = open_engine(self.engine, threads=self.threads, trusted=self.trusted)
        found = engine.manifest.payload_sha256
        if found != self.manifest.payload_sha256:
            engine.close()
            raise EngineRefused(
                f"{self.engine}: was replaced by another engine ({found[:12]}…) while the line runs on "
                f"{self.manifest.payload_sha256[:12]}…: reload the config to change over"
            )
        return engine if self.merge is None else TiledEngine(engine, self.merge)

    def close(self, engine: Engine) -> None:
        """Close an engine that was opened; if that fails, log it.

        A device that has failed may fail to free its memory, too, and the line must go on all the same.
        """
        try:
            engine.close()
        except Exception as error:  # whatever a driver raises
            _log.error("%s: could not be closed: %s", self.engine, error)
