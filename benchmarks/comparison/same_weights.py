"""(a) One model, four runtimes: ours as build-engine chose it, and the peer's three."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from numpy.typing import NDArray
from peer.client import Peer

from comparison.equality import TOLERANCE, NotTheSame, SamePeer
from comparison.pairing import Spread, Turn, ratio, take_turns, timed
from comparison.report import Part, Table
from comparison.session import Session
from engine_runtime.engine import SCORE, Engine, uncalibrated
from pictures.frames import Frame

if TYPE_CHECKING:  # it imports torch
    from engine_runtime.manifest import Precision
    from models.efficientad.networks import ModelSize

OURS = "ours"
OPENVINO, AS_IT_COMES = "anomalib, OpenVINO, float32", "anomalib, OpenVINO, its choice"
PEERS: dict[str, dict[str, Any]] = {
    OPENVINO: {"runtime": "openvino", "precision": "f32"},
    AS_IT_COMES: {"runtime": "openvino"},
    "anomalib, ONNX Runtime": {"runtime": "onnxruntime"},
    "anomalib, torch": {"runtime": "torch"},
}
SIDE = 256

_LAPS: "dict[ModelSize, tuple[int, int]]" = {"s": (12, 3), "m": (4, 2)}
"""Of single frames, and of batches."""


def compare(session: Session) -> Part:
    """Time S and M in batches of 1 and 8."""
    rows, measured, gaps = [], {}, {}
    notes = [
        "The time is that of the model alone: the peer's input is laid out as float32 before, ours is the"
        f" camera's uint8. Map and score of each float32 row differ from ours by at most {TOLERANCE:g} of the"
        " largest value, which is checked before anything is timed.",
    ]
    batches = (1, session.max_batch)
    for size, usual in _LAPS.items():
        engine = session.engine(size, SIDE, batches[-1])
        with session.peer() as peer:
            same = SamePeer(session, peer, size, SIDE, engine)
            gaps[size] = differences = open_peers(session, peer, same)
            if size == "s":
                notes.append(precision_note(peer))
            opened = session.open(engine)
            rounded = open_rounded(session) if size == "s" else {}
            gaps[size] |= {name: _difference(session, other, opened) for name, other in rounded.items()}
            about = f"{opened.manifest.runtime}, {len(opened.manifest.winograd)} convolutions rewritten"
            notes.append(f"Ours, {size.upper()}: {about}.")
            for batch, laps in zip(batches, usual, strict=True):
                stack, path = session.frames(SIDE, batch)
                sides = {OURS: ours(opened, stack)} | {name: theirs(peer, name, path) for name in PEERS}
                sides |= {name: ours(other, stack) for name, other in rounded.items()}
                times = take_turns(sides, session.laps(laps), f"(a) {size.upper()}, batch {batch}")
                measured[f"{size}, batch {batch}"] = times
                for name in sides:
                    gap = f"{differences[name]:.0e}" if name in differences else ""
                    share = "" if name == OURS else f"{ratio(times, name, OURS).median:.2f}"
                    rows.append(
                        (f"{size.upper()}, {batch}", name, *Spread.of(times[name]).cells(), share, gap)
                    )
            for other in (opened, *rounded.values()):
                other.close()
    columns = ("size, batch", "", "ms per batch", "10–90 %", "× ours", "difference")
    return Part(
        "The same weights, 256×256",
        Table(columns, rows),
        notes,
        {"ms": measured, "differences": gaps},
    )


def open_rounded(session: Session) -> dict[str, Engine]:
    """Open ours in the precisions that a user may ask for and this CPU has."""
    precisions: dict[str, Precision] = {"ours, bfloat16": "bf16", "ours, INT8": "int8"}
    found = {}
    for name, precision in precisions.items():
        if precision != "bf16" or "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            found[name] = session.open(session.engine("s", SIDE, session.max_batch, precision))
    return found


def _difference(session: Session, rounded: Engine, exact: Engine) -> float:
    """Give how far scores move, as a share of the largest."""
    frames: list[Frame] = list(session.frames(SIDE, session.max_batch)[0])
    quantiles = uncalibrated(exact.manifest.maps)
    scores, others = (engine.infer(frames, quantiles)[SCORE] for engine in (exact, rounded))
    return float(np.abs(others - scores).max() / np.abs(scores).max())


def open_peers(session: Session, peer: Peer, same: SamePeer) -> dict[str, float]:
    """Open the peer's runtimes and give how far each is from ours.

    Raises:
        NotTheSame: one that computes in float32 differs by more than the tolerance.
    """
    paths = same.export()
    differences = {}
    for name, settings in PEERS.items():
        path = paths.get(settings["runtime"], "")
        peer.ask("open", name=name, threads=session.threads, path=path, **settings)
        differences[name] = same.difference(name)
        if name != AS_IT_COMES and differences[name] > TOLERANCE:
            raise NotTheSame(f"{name}: map or score differ by {differences[name]:.1e} of the largest value")
    return differences


def precision_note(peer: Peer) -> str:
    """Say what OpenVINO computes in when the peer's user says nothing."""
    precision = peer.ask("precision", name=AS_IT_COMES)["precision"]
    return (
        "“Its choice” is what the peer's user gets without a setting: on this CPU OpenVINO then computes in"
        f" {precision}. All other rows are float32."
    )


def ours(engine: Engine, stack: NDArray[np.uint8]) -> Turn:
    """Make the turn that times our engine on a batch."""
    frames: list[Frame] = list(stack)
    quantiles = uncalibrated(engine.manifest.maps)
    return lambda: timed(lambda: engine.infer(frames, quantiles))


def theirs(peer: Peer, name: str, frames: Path) -> Turn:
    """Make the turn that times a model the peer opened, on the frames of a file."""
    return lambda: float(peer.ask("infer", name=name, frames=str(frames))["ms"])
