"""(b), (c) Our engine beside torch's ways of running the same weights, and the share of the GPU's peak."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison.models import draw_frames
from comparison.pairing import Spread, Turn, ratio, take_turns, timed
from comparison.report import Part, Table

from acceleration.torch_ways import HalfModel, Way, captured, compiled, model_flops, product_flops, published
from engine_runtime.engine import SCORE, UNCALIBRATED, Engine
from engine_runtime.frames import Frame, Size
from engine_runtime.open import open_engine

BATCHES = (1, 2, 4, 8, 16, 32)
OURS = "ours"
LEAST_MS = 30.0
"""A turn repeats a batch for so long."""
SAME = 0.03
"""Largest difference of a score between two ways, as a share of the largest score: all are in half."""


class NotTheSame(Exception):
    """Two ways do not compute the same: to time them would mean nothing."""


def compare(engines: Mapping[str, Path], weights: Mapping[str, Path], side: int, laps: int) -> Part:
    """Time every way at every batch size.

    Args:
        engines: our engine for each size of model; none where no runtime of ours runs here.
        weights: state dict for each size of model.
        side: of the frames, pixels.
        laps: turns of each way.

    Raises:
        NotTheSame: two ways give other scores.
    """
    device = torch.device("cuda")
    peak = product_flops()
    rows, measured = [], {}
    for size, file in weights.items():
        model = HalfModel(file, size, side, device)  # type: ignore[arg-type]
        flops = model_flops(model, side)
        opened = open_engine(engines[size]) if size in engines else None
        for batch in BATCHES:
            frames = draw_frames(Size(side, side), batch)
            ways: dict[str, Way] = {
                "torch as published": published(model, frames, device),
                "torch.compile": compiled(model, frames, device),
                "torch, CUDA graph": captured(model, frames, device),
            }
            if opened is not None and batch <= opened.manifest.max_batch:
                ways = {OURS: ours(opened, list(frames))} | ways
            _refuse_difference(ways)
            turns = {name: repeated(way) for name, way in ways.items()}
            times = take_turns(turns, laps, f"{size}, batch {batch}")
            measured[f"{size}, batch {batch}"] = times
            for name in ways:
                middle = Spread.of(times[name])
                per_second = batch / middle.median * 1e3
                rows.append(
                    (
                        f"{size.upper()}, {batch}, {name}",
                        *middle.cells(3),
                        f"{per_second:,.0f}",
                        f"{per_second * flops / peak:.0%}",
                        f"{ratio(times, name, OURS).median:.2f}" if OURS in times and name != OURS else "",
                    )
                )
        if opened is not None:
            opened.close()
    columns = ("size, batch, way", "ms per batch", "10–90 %", "images/s", "of peak", "× ours")
    note = (
        "Every way copies the frames to the GPU and scores and maps back. The peak is a product of two"
        f" matrices of 8192×8192 in half, measured in this run: {peak / 1e12:.0f} TFLOP/s."
    )
    return Part(
        f"S and M at {side}×{side} in half precision",
        Table(columns, rows),
        [note],
        {"ms": measured, "peak_flops": peak},
    )


def ours(engine: Engine, frames: Sequence[Frame]) -> Way:
    """Run our engine as a lane does: scores and maps come back."""
    return lambda: engine.infer(frames, UNCALIBRATED)[SCORE]


def _refuse_difference(ways: Mapping[str, Way]) -> None:
    scores = {name: way().copy() for name, way in ways.items()}
    first, expected = next(iter(scores.items()))
    for name, found in scores.items():
        apart = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not apart <= SAME:
            raise NotTheSame(f"{name} and {first}: scores differ by {apart:.1%}")


def repeated(way: Way) -> Turn:
    """Make a turn of as many repetitions as fill its time; it gives the milliseconds of one."""
    once = min(timed(way) for _ in range(3))
    count = max(1, round(LEAST_MS / once))

    def work() -> Any:
        for _ in range(count):
            way()

    return lambda: timed(work) / count
