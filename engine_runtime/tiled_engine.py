"""An engine that judges pictures cut into tiles, with the interface of one that judges frames."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine, Quantiles
from pictures.frames import Frame
from pictures.tile_merge import TileMerge

Infer = Callable[[Sequence[Frame], Sequence[str]], Mapping[str, NDArray[np.float32]]]
"""Gives of N frames, H×W×3 uint8, the named maps, each N×h×w."""


def infer_tiles(
    pictures: Sequence[Frame], outputs: Sequence[str], merge: TileMerge, most: int, infer: Infer
) -> dict[str, NDArray[np.float32]]:
    """Judge pictures by their tiles, which are frames for whatever judges frames.

    Args:
        pictures: each tiles×H×W×3 uint8, from ``TileGrid.cut``.
        outputs: maps, and ``score``, which is the largest value of the merged anomaly map.
        merge: of the grid by which the pictures were cut.
        most: tiles of one batch.
        infer: judges a batch of tiles.

    Returns:
        Output → N×H×W float32 of ``merge.geometry.map``; the score N.
    """
    tiles = [tile for picture in pictures for tile in picture]
    names = tuple({ANOMALY_MAP if name == SCORE else name: None for name in outputs})
    maps = {name: np.empty((len(tiles), *merge.tile.map), dtype=np.float32) for name in names}
    for start in range(0, len(tiles), most):
        results = infer(tiles[start : start + most], names)
        for name in names:
            maps[name][start : start + most] = results[name]
    merged = {name: merge(maps[name]) for name in names}
    if SCORE in outputs:
        merged[SCORE] = merged[ANOMALY_MAP].max(axis=(1, 2))
    return {name: merged[name] for name in outputs}


class TiledEngine:
    """Runs the tiles of each picture through an engine and merges their maps.

    Its frames are tiles×H×W×3 uint8, from ``TileGrid.cut``; its maps lie as ``merge.geometry`` says, and its
    score is the largest value of the merged anomaly map. ``manifest`` is the engine's own, with the size of
    the merged map and the number of whole pictures that fill its batch.
    """

    def __init__(self, engine: Engine, merge: TileMerge) -> None:
        """Wrap an opened engine, which ``close`` will close."""
        self._engine = engine
        self._merge = merge
        self.manifest = engine.manifest.model_copy(
            update={
                "map_size": merge.geometry.map,
                "max_batch": pictures_at_once(engine.manifest.max_batch, merge),
            }
        )

    @property
    def trouble(self) -> str | None:
        """See ``Engine.trouble``."""
        return self._engine.trouble

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``."""

        def infer(tiles: Sequence[Frame], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
            return self._engine.infer(tiles, quantiles, names)

        return infer_tiles(frames, outputs, self._merge, self._engine.manifest.max_batch, infer)

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``."""
        return self._engine.half_precision_share()

    def close(self) -> None:
        """See ``Engine.close``."""
        self._engine.close()


def pictures_at_once(max_batch: int, merge: TileMerge) -> int:
    """Say how many pictures fill an engine's batch with their tiles; at least one, in several batches."""
    return max(1, max_batch // len(merge.grid))
