"""(h) PaDiM in its precisions and PatchCore beside our XS and the peer's EfficientAd, PaDiM and PatchCore."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import openvino
from inspection import BIN

from comparison.equality import SamePeer
from comparison.footprint import FRAMES, start_daemon
from comparison.pairing import Spread, Turn, ratio, take_turns
from comparison.report import Part, Table
from comparison.same_weights import OPENVINO, SIDE, open_peers, ours, theirs
from comparison.session import Session
from models.datasets.open import open_data_set

PATCHES = 20_000
"""That the peer's PatchCore remembers: a tenth of those of some 200 images, its default share."""
FIXED_BATCH = 2
"""Of the peer's exported PatchCore: torch's exporter keeps the size of its example."""
FP32 = "ours, PaDiM, FP32"


def compare(session: Session) -> Part:
    """Time all of them in turns."""
    assert session.product is not None
    engines = fitted_engines(session, session.product)
    opened, opening, size = {}, {}, {}
    for name, path in engines.items():
        began = time.perf_counter()
        opened[name] = session.open(path)
        opening[name], size[name] = time.perf_counter() - began, path.stat().st_size / 1e6
    opened["ours, XS"] = session.open(session.engine("xs", SIDE, 1))
    stack, path = session.frames(SIDE, 1)
    with session.peer() as peer:
        same = SamePeer(session, peer, "s", SIDE, session.engine("s", SIDE, 1))
        open_peers(session, peer, same)
        sides = {name: ours(engine, stack) for name, engine in opened.items()}
        sides[f"{OPENVINO}, EfficientAd-S"] = theirs(peer, OPENVINO, path)
        for method, batch, shown in (
            ("padim", 1, "PaDiM, resnet18"),
            ("patchcore", FIXED_BATCH, "PatchCore, wide_resnet50_2, a frame of two"),
        ):
            folder = session.fresh_folder(method)
            exported = peer.ask(
                "export_untrained", method=method, side=SIDE, patches=PATCHES, folder=str(folder)
            )
            peer.ask(
                "open",
                name=method,
                runtime="openvino",
                precision="f32",
                threads=session.threads,
                path=exported["openvino"],
            )
            infer = theirs(peer, method, session.frames(SIDE, batch)[1])
            sides[f"{OPENVINO}, {shown}"] = partial(per_frame, infer, batch)
        times = take_turns(sides, session.laps(30), "(h) PaDiM")
    for engine in opened.values():
        engine.close()
    started = {name: start_daemon(session, path) for name, path in engines.items()}
    rows = [
        (
            name,
            *Spread.of(times[name]).cells(),
            "" if name == FP32 else f"{ratio(times, name, FP32).median:.2f}",
            f"{min(times[name]):.1f}",
            f"{opening[name]:.2f}" if name in opening else "",
            f"{size[name]:.1f}" if name in size else "",
            f"{started[name].resident_mb:.0f} ({started[name].peak_mb:.0f})" if name in started else "",
        )
        for name in sides
    ]
    columns = (
        "",
        "ms per frame",
        "10–90 %",
        "× PaDiM, FP32",
        "fastest lap, ms",
        "opened in, s",
        "file, MB",
        "daemon, MB",
    )
    return Part(
        "PaDiM, 256×256, one frame",
        Table(columns, rows),
        [
            f"PaDiM and PatchCore as `train-model` fits them on {session.product.name}; INT8 and bfloat16 are"
            " corrected on its good images. The peer's PaDiM and PatchCore have untrained backbones and drawn"
            f" statistics, {PATCHES:,} patches for PatchCore, which changes no time; its export takes two"
            " frames at once, and no other number. All engines run with"
            " OpenVINO but XS, whose runtime `build-engine` chose. The last column is what `inspectd` holds"
            f" with one camera after {FRAMES} frames, and in brackets the most that it held while it"
            " started; the camera's process is not counted."
        ],
        {
            "ms": times,
            "opening_s": opening,
            "file_mb": size,
            "daemon_mb": {name: vars(start) for name, start in started.items()},
        },
    )


def per_frame(infer: Turn, batch: int) -> float:
    """Time a batch, and give the milliseconds of one frame."""
    return infer() / batch


def fitted_engines(session: Session, product: Path) -> dict[str, Path]:
    """Fit PaDiM and PatchCore, and build PaDiM in every precision that this CPU has."""
    for method in ("padim", "patchcore"):
        model = session.folder / f"{method}.onnx"
        run([BIN / "train-model", "--data", product, "--method", method, "--out", model])
    good = ("--good", open_data_set(product).good().training[0].parent)
    built = {FP32: ("padim", "fp32", ()), "ours, PaDiM, INT8": ("padim", "int8", good)}
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        built["ours, PaDiM, bfloat16"] = ("padim", "bf16", good)
    built["ours, PatchCore, FP32"] = ("patchcore", "fp32", ())
    engines = {}
    for name, (method, precision, images) in built.items():
        model = session.folder / f"{method}.onnx"
        engines[name] = session.folder / f"{method}-{precision}.engine"
        run(
            [
                *(BIN / "build-engine", model, "-o", engines[name], "--precision", precision, *images),
                *("--fast", "--runtime", "openvino", "--max-batch", "1", "--threads", session.threads),
            ]
        )
    return engines


def run(command: list[object]) -> None:
    """Run one of our commands."""
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
