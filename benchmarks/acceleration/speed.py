"""(b), (c) Our engine beside torch's ways of running the same weights, and the share of the GPU's peak."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comparison.equality import NotTheSame
from comparison.models import draw_frames
from comparison.pairing import Spread, Turn, ratio, take_turns, timed
from comparison.report import Part, Table
from comparison.session import Session
from numpy.typing import NDArray
from peer.client import Peer

from acceleration.anomalib import NAME as ANOMALIB
from acceleration.anomalib import HalfPeer
from acceleration.torch_ways import HalfModel, Way, captured, compiled, model_flops, product_flops, published
from daemon.capture.slots import FrameSlots
from engine_runtime.engine import SCORE, Engine, uncalibrated
from engine_runtime.open import open_engine
from pictures.frames import Frame, Size

if TYPE_CHECKING:
    from models.efficientad.networks import ModelSize

BATCHES = (1, 2, 4, 8, 16, 32)
COMPILED = (1, 16)
"""Batches for which torch compiles the model: it takes its time for each."""
OURS = "ours"
LEAST_MS = 30.0
"""A turn repeats a batch for so long."""
SAME = 0.03
"""Largest difference of a score between two ways, as a share of the largest score: all are in half."""


def compare(
    session: Session, sizes: "Sequence[ModelSize]", engines: Mapping[str, Path], side: int, *, peer: bool
) -> Part:
    """Time every way at every batch size.

    Args:
        session: of the run.
        sizes: of the models.
        engines: our engine for each size; none where no runtime of ours runs here.
        side: of the frames, pixels.
        peer: whether anomalib takes its turns.

    Raises:
        NotTheSame: two ways give other scores.
        PeerFailed: anomalib does not run.
    """
    with ExitStack() as stack:
        theirs = stack.enter_context(session.peer()) if peer else None
        return _compare(session, sizes, engines, side, theirs)


def _compare(
    session: Session, sizes: "Sequence[ModelSize]", engines: Mapping[str, Path], side: int, peer: Peer | None
) -> Part:
    device, laps = torch.device("cuda"), session.laps(15)
    peak = product_flops()
    rows, measured = [], {}
    for size in sizes:
        file = session.weights(size, side)
        half_peer = None if peer is None else HalfPeer(session, peer, size, side, device.type)
        model = HalfModel(file, size, side, device)
        flops = model_flops(model, side)
        opened = open_engine(engines[size]) if size in engines else None
        for batch in BATCHES:
            frames = draw_frames(Size(side, side), batch)
            ways: dict[str, Way] = {
                "torch as published": published(model, frames, device),
                "torch, CUDA graph": captured(model, frames, device),
            }
            if batch in COMPILED:
                ways["torch.compile"] = compiled(model, frames, device)
            if opened is not None and batch <= opened.manifest.max_batch:
                ways = {OURS: ours(opened, frames)} | ways
            _refuse_difference(ways)
            turns = {name: repeated(way) for name, way in ways.items()}
            if half_peer is not None:
                turns[ANOMALIB] = half_peer.turn(batch, LEAST_MS)
            times = take_turns(turns, laps, f"{size}, batch {batch}")
            measured[f"{size}, batch {batch}"] = times
            for name in turns:
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
    left_out = [] if peer is not None else ["anomalib was not measured: --peer-python was not given."]
    return Part(
        f"S and M at {side}×{side} in half precision",
        Table(columns, rows),
        [note, *left_out],
        {"ms": measured, "peak_flops": peak},
    )


def ours(engine: Engine, frames: NDArray[np.uint8]) -> Way:
    """Run our engine as a lane does: frames lie in page-locked slots, scores and maps come back."""
    slots = FrameSlots.create(len(frames), frames.shape[1:])
    slots.page_lock()
    for slot, frame in enumerate(frames):
        slots[slot][...] = frame
    slots.close()  # the memory lives as long as its views
    given: Sequence[Frame] = [slots[slot] for slot in range(len(frames))]
    quantiles = uncalibrated(engine.manifest.maps)
    return lambda: engine.infer(given, quantiles)[SCORE]


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
