"""(c) From a camera's frame to the decision: all that lies around the model is included."""

from functools import partial
from pathlib import Path

import numpy as np
from peer.client import Peer

from comparison.equality import SamePeer
from comparison.line import Camera, LineFailed, run_line
from comparison.pairing import Spread, Turn, ratio, take_turns, timed
from comparison.report import Part, Table
from comparison.session import Session
from engine_runtime.engine import SCORE, Engine, uncalibrated
from pictures.frames import Frame, fit

OURS = "ours"
SIDE, MODEL_SIDE = 1024, 256
THROUGH_DAEMON = "ours, through inspectd"
_PEERS = {"anomalib, OpenVINO, float32": "f32", "anomalib, OpenVINO, its choice": None}


def compare(session: Session) -> Part:
    """Time S on a frame of 1024×1024."""
    engine_file = session.engine("s", MODEL_SIDE, session.max_batch)
    with session.peer() as peer:
        path = SamePeer(session, peer, "s", MODEL_SIDE, engine_file).export(free=True)["openvino"]
        for name, precision in _PEERS.items():
            peer.ask(
                "open",
                name=name,
                runtime="openvino",
                path=path,
                threads=session.threads,
                precision=precision,
            )
        engine = session.open(engine_file)
        picture = session.frames(SIDE, 1)[0][0]
        colours = session.folder / "rgb.npy"
        np.save(colours, picture[..., ::-1])
        sides: dict[str, Turn] = {OURS: partial(judge, engine, picture)}
        sides |= {name: partial(predict, peer, name, colours) for name in _PEERS}
        times = take_turns(sides, session.laps(15), "(c) frame → verdict")
        frame_s = Spread.of(times[OURS]).median / 1e3
        engine.close()
    times[THROUGH_DAEMON] = through_the_daemon(session, engine_file, frame_s, session.laps(15))
    rows = [
        (
            name,
            *Spread.of(values).cells(),
            "" if name not in _PEERS else f"{ratio(times, name, OURS).median:.2f}",
        )
        for name, values in times.items()
    ]
    return Part(
        "From a frame of 1024×1024 to the verdict, S at 256×256",
        Table(("", "ms per frame", "10–90 %", "× ours"), rows),
        [
            "The peer: `OpenVINOInferencer.predict` on an RGB array, its model exported with a free input"
            " size, so that the graph resizes, normalises and compares with the threshold. Ours: area"
            " resize, engine, threshold. The row through the daemon follows by itself: from the capture in"
            " the camera's process to the decision, with a frame whenever the one before is judged.",
            "The two resize differently, so the scores of this part are not compared.",
        ],
        {"ms": times},
    )


def judge(engine: Engine, picture: Frame) -> float:
    """Time our way from a frame to a decision, through the engine's API."""
    quantiles = uncalibrated(engine.manifest.maps)

    def verdict() -> bool:
        frame = fit(picture, engine.manifest.input_size)
        return bool(engine.infer([frame], quantiles)[SCORE][0] > 1.0)

    return timed(verdict)


def predict(peer: Peer, name: str, frame: Path) -> float:
    """Time the peer's way from a frame to a label."""
    return float(peer.ask("predict", name=name, frame=str(frame))["ms"])


def through_the_daemon(session: Session, engine: Path, frame_s: float, frames: int) -> list[float]:
    """Give milliseconds from capture to decision of a daemon that is never asked for two frames at once."""
    camera = Camera(SIDE, frames + 1, 1 / (2 * frame_s + 0.1))
    run = run_line(session, engine, [camera], "(c) inspectd", deadline_ms=60_000)
    if run.faults:
        raise LineFailed(f"inspectd gave {sum(run.faults.values())} faults on a line without haste")
    return [verdict.latency_ms.total for verdict in run.verdicts[1:]]
