"""(b) XS, the size for CPUs, beside the smallest that the peer has."""

from comparison.equality import SamePeer
from comparison.pairing import Spread, ratio, take_turns
from comparison.report import Part, Table
from comparison.same_weights import AS_IT_COMES, OPENVINO, SIDE, open_peers, ours, theirs
from comparison.session import Session

XS = "ours, XS"


def compare(session: Session) -> Part:
    """Time our XS and the peer's S, one frame at a time."""
    with session.peer() as peer:
        same = SamePeer(session, peer, "s", SIDE, session.engine("s", SIDE, session.max_batch))
        open_peers(session, peer, same)
        engine = session.open(session.engine("xs", SIDE, session.max_batch))
        stack, path = session.frames(SIDE, 1)
        sides = {XS: ours(engine, stack)}
        sides |= {f"{name}, S": theirs(peer, name, path) for name in (OPENVINO, AS_IT_COMES)}
        times = take_turns(sides, session.laps(30), "(b) XS")
        engine.close()
    rows = [
        (name, *Spread.of(times[name]).cells(), "" if name == XS else f"{ratio(times, name, XS).median:.1f}")
        for name in sides
    ]
    return Part(
        "XS, 256×256, one frame",
        Table(("", "ms per frame", "10–90 %", "× ours"), rows),
        ["Another model: XS is less wide than S, and the peer has no such size."],
        {"ms": times},
    )
