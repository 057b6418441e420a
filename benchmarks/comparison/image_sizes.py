"""(e) Smaller and larger images, one frame at a time."""

from peer.client import PeerFailed

from comparison.equality import TOLERANCE, NotTheSame, SamePeer
from comparison.pairing import Spread, ratio, take_turns
from comparison.report import Part, Table
from comparison.same_weights import OPENVINO, OURS, PEERS, ours, theirs
from comparison.session import Session

_LAPS = {128: 20, 256: 10, 512: 5, 1024: 2}


def compare(session: Session) -> Part:
    """Time S at sides from 128 to 1024 pixels."""
    rows, measured, notes = [], {}, []
    for side, laps in _LAPS.items():
        if session.quick and side not in {128, 256}:
            continue
        # One that other parts share; batches of larger images take much memory.
        path = session.engine("s", side, session.max_batch if side == 256 else 1)
        with session.peer() as peer:
            engine = session.open(path)
            stack, frames = session.frames(side, 1)
            sides = {OURS: ours(engine, stack)}
            try:
                same = SamePeer(session, peer, "s", side, path)
                exported = same.export()
                peer.ask(
                    "open",
                    name=OPENVINO,
                    threads=session.threads,
                    path=exported["openvino"],
                    **PEERS[OPENVINO],
                )
                gap = same.difference(OPENVINO)
                if same.whole and gap > TOLERANCE:
                    raise NotTheSame(f"{OPENVINO} at {side}²: differs by {gap:.1e} of the largest value")
                sides[OPENVINO] = theirs(peer, OPENVINO, frames)
            except PeerFailed as error:
                notes.append(f"At {side}×{side}: {error}.")
            times = take_turns(sides, session.laps(laps), f"(e) {side}²")
            engine.close()
        measured[f"{side}"] = times
        found = [Spread.of(times[name]).cells() if name in times else ("–", "–") for name in (OURS, OPENVINO)]
        rows.append(
            (
                f"{side}×{side}",
                *found[0],
                *found[1],
                f"{ratio(times, OPENVINO, OURS).median:.2f}" if OPENVINO in times else "–",
                f"{len(engine.manifest.winograd)}",
            )
        )
    columns = ("image", "ours, ms", "10–90 %", "anomalib, OpenVINO, ms", "10–90 %", "× ours", "rewritten")
    return Part(
        "Image sizes, S, one frame, float32",
        Table(columns, rows),
        [
            "The networks are the same; only at 256×256 are the autoencoders, too: the peer's last encoder"
            " layer is 8×8 at every size, ours covers the whole image. So at the other sizes the"
            " student–teacher maps are compared, and each side runs its own autoencoder. “Rewritten” counts"
            " the convolutions that build-engine rewrote in the time it had.",
            *notes,
        ],
        {"ms": measured},
    )
