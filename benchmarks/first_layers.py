"""What other ways of writing a model's first layers gain, as rewrites of the exported graph.

    python benchmarks/first_layers.py --json FILE --markdown FILE

All of them compute the same scores. Each is built with the user's own command, and takes turns with the graph
as it is exported, on both CPU runtimes and, where there is an NVIDIA GPU, on TensorRT in half precision. The
models are untrained, which changes no time.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from acceleration.speed import ours, repeated
from comparison.equality import NotTheSame
from comparison.models import draw_frames, write_frames, write_untrained
from comparison.pairing import Spread, Turn, ratio, take_turns
from comparison.report import Part, Report, Table
from inspection import BIN
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from engine_build.device import cpu_name, usable_cores
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine import SCORE, Engine, uncalibrated
from engine_runtime.engine_file import read_manifest
from engine_runtime.open import open_engine
from engine_runtime.tensorrt_library import is_installed
from pictures.frames import Size

EXPORTED = "as exported"
IMAGE = Size(256, 256)
FRAMES = 2
"""On which scores are compared when an engine is built."""
PDNS = ("teacher", "student")
SAME = {"fp32": 1e-5, "fp16": 0.02}
"""Largest difference of a score from that of the exported graph, as a share of the largest score."""


def weight(model: ModelProto, name: str) -> NDArray[np.float32]:
    return numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))


def put(model: ModelProto, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> None:
    """Add a weight, or replace the one of that name."""
    kept = [item for item in model.graph.initializer if item.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(values, name)])


def node(model: ModelProto, name: str) -> NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def insert_after(model: ModelProto, name: str, added: NodeProto) -> None:
    nodes = list(model.graph.node)
    nodes.insert(nodes.index(node(model, name)) + 1, added)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def one_first_layer(model: ModelProto) -> None:
    """Teacher's and student's first convolution, activation and pooling become one; then they part."""
    for kind in ("weight", "bias"):
        put(model, f"teacher_0_{kind}", np.concatenate([weight(model, f"{pdn}_0_{kind}") for pdn in PDNS]))
    width = len(weight(model, "student_0_bias"))
    put(model, "halves", np.array([width, width], np.int64))
    node(model, "teacher_2").output[0] = "both"
    for layer in range(3):
        model.graph.node.remove(node(model, f"student_{layer}"))
    split = helper.make_node("Split", ["both", "halves"], ["teacher_2", "student_2"], name="part", axis=1)
    insert_after(model, "teacher_2", split)


def pixels_as_they_are(model: ModelProto) -> None:
    """Mean and deviation go into the first weights of teacher and student, which read 0 to 255."""
    # The autoencoder's first convolution is padded with zeros, which after normalisation are the mean.
    mean, scale = (weight(model, name).astype(np.float64) for name in ("mean", "scale"))
    for pdn in PDNS:
        scaled = weight(model, f"{pdn}_0_weight").astype(np.float64) * scale[:, None, None]
        bias = weight(model, f"{pdn}_0_bias") - np.einsum("oihw,i->o", scaled, mean)
        put(model, f"{pdn}_0_weight", scaled.astype(np.float32))
        put(model, f"{pdn}_0_bias", bias.astype(np.float32))
        node(model, f"{pdn}_0").input[0] = "planes"
    planes = helper.make_node("Transpose", ["pixels"], ["planes"], name="planes", perm=[0, 3, 1, 2])
    insert_after(model, "pixels", planes)


def eight_channels(model: ModelProto) -> None:
    """Five channels of zeros are added to the picture's three: a GPU's fast convolutions read eight."""
    put(model, "five more", np.array([0, 0, 0, 0, 0, 5, 0, 0], np.int64))
    add_channels(model, helper.make_node("Pad", ["three", "five more"], ["image"], name="padded"))


def copied_once(model: ModelProto) -> None:
    """The same by a convolution, so that a GPU prepares the picture once and not for each network."""
    put(model, "copy", np.eye(8, 3, dtype=np.float32)[:, :, None, None])
    add_channels(model, helper.make_node("Conv", ["three", "copy"], ["image"], name="copied"))


def add_channels(model: ModelProto, added: NodeProto) -> None:
    """Put a node after the picture, named ``three`` then, that gives it five more channels."""
    node(model, "image").output[0] = "three"
    insert_after(model, "image", added)
    node(model, "batch").input[0] = "three"
    for network in (*PDNS, "autoencoder"):
        first = weight(model, f"{network}_0_weight")
        put(model, f"{network}_0_weight", np.pad(first, ((0, 0), (0, 5), (0, 0), (0, 0))))


def rows_as_they_lie(model: ModelProto) -> None:
    """Nothing is transposed: the picture stays as it lies, one channel of rows three times as wide."""
    height, width = (side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    put(model, "as rows", np.array([0, 1, height, 3 * width], np.int64))
    image = node(model, "image")
    image.CopyFrom(helper.make_node("Reshape", ["scaled", "as rows"], ["image"], name="image"))
    for network in (*PDNS, "autoencoder"):
        first = weight(model, f"{network}_0_weight")
        along = np.moveaxis(first, 1, 3)  # output, row, column, channel
        put(model, f"{network}_0_weight", along.reshape(len(first), 1, first.shape[2], -1))
        for attribute in node(model, f"{network}_0").attribute:
            if attribute.name in {"kernel_shape", "strides", "pads"}:
                values = attribute.ints
                values[1::2] = [3 * value for value in values[1::2]]


def both(model: ModelProto) -> None:
    """One first layer that reads pixels as they are."""
    pixels_as_they_are(model)
    one_first_layer(model)


def nothing(_: ModelProto) -> None:
    """Three first convolutions, two with the same input, which is cast, normalised and transposed before."""


REWRITES: dict[str, Callable[[ModelProto], None]] = {
    EXPORTED: nothing,
    "one first layer": one_first_layer,
    "pixels as they are": pixels_as_they_are,
    "both": both,
    "eight channels": eight_channels,
    "copied once": copied_once,
    "rows as they lie": rows_as_they_lie,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("xs", "s", "m"), default=["xs", "s"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="N", help="(default: 1 8)")
    known = ["a", "b"] if is_installed() else ["a"]
    parser.add_argument(
        "--parts", nargs="+", choices=known, default=known, help="a: time; b: rounding, with TensorRT"
    )
    present = gpu()
    runtimes = ["openvino", "onnxruntime", *([] if present is None else ["tensorrt"])]
    parser.add_argument(
        "--runtimes", nargs="+", choices=runtimes, default=runtimes, help="(default: all here)"
    )
    parser.add_argument("--laps", type=int, default=15, help="per graph and batch (default: 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    options = parser.parse_args()
    parts = {}
    if "a" in options.parts:
        parts["a"] = time_all(options.sizes, options.runtimes, options.batches, options.laps)
    if "b" in options.parts:
        parts["b"] = round_all(options.sizes)
    command = shlex.join(["python", "benchmarks/first_layers.py", *sys.argv[1:]])
    made = f"`{command}` on {datetime.now(UTC):%Y-%m-%d}."
    report = Report(
        title="Other first layers",
        introduction="The same model with its first layers written otherwise; its scores stay the same.\n\n"
        + "\n".join(f"- *{name}*: {rewrite.__doc__}" for name, rewrite in REWRITES.items()),
        quick=options.laps < 10,
        machine={
            "processor": cpu_name(),
            "threads": usable_cores(),
            "GPU": "none" if present is None else present.name,
        },
        versions={"packages": {name: version(name) for name in ("openvino", "onnxruntime")}},
        parts={letter: replace(part, made=made) for letter, part in parts.items()},
    )
    for path, text in ((options.json, report.json()), (options.markdown, report.markdown())):
        if path is not None:
            path.write_text(text)
    print(report.markdown())


def time_all(sizes: Sequence[str], runtimes: Sequence[str], batches: Sequence[int], laps: int) -> Part:
    """Let the graphs take turns on each runtime."""
    rows: list[tuple[str, ...]] = []
    measured: dict[str, dict[str, list[float]]] = {}
    for size in sizes:
        for runtime in runtimes:
            with tempfile.TemporaryDirectory() as folder:
                built = build(Path(folder), size, runtime, max(batches))
                engines = {name: open_engine(path) for name, path in built.items()}
                for batch in batches:
                    label = f"{runtime}, {size.upper()}, {batch}"
                    measured[label] = compare(engines, batch, laps, label)
                    for name, times in measured[label].items():
                        gain = "" if name == EXPORTED else gained(measured[label], name)
                        rows.append((f"{label}, {name}", *Spread.of(times).cells(2), gain))
                for engine in engines.values():
                    engine.close()
    columns = ("runtime, size, batch, graph", "ms per batch", "10–90 %", "× as fast as exported, 10–90 %")
    notes = ["TensorRT was not timed: there was no NVIDIA GPU."] if gpu() is None else []
    return Part("Time", Table(columns, rows), notes, measured)


def round_all(sizes: Sequence[str]) -> Part:
    """See what half precision costs each graph in scores, on the CPU, as ``build-engine`` does."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, path in build(Path(folder), size, "tensorrt", 1).items():
                rows.append(
                    (f"{size.upper()}, {name}", f"{read_manifest(path).proof.graph_score_difference:.1e}")
                )
    columns = ("size, graph", "score difference from FP32")
    note = f"The largest of {FRAMES} frames, as a share of the largest score."
    return Part("In half precision", Table(columns, rows), [note])


def build(folder: Path, size: str, runtime: str, max_batch: int) -> dict[str, Path]:
    """Rewrite the exported graph and build an engine of each; for TensorRT in half precision."""
    graph = folder / "model.onnx"
    write_untrained(folder / "model.pt", graph, size, IMAGE)
    parity = write_frames(folder / "parity", IMAGE, FRAMES)
    engines = {}
    for name, rewrite in REWRITES.items():
        model = onnx.load(graph)
        rewrite(model)
        onnx.checker.check_model(model, full_check=True)
        source = folder / f"{name.replace(' ', '-')}.onnx"
        onnx.save(model, source)
        engines[name] = source.with_suffix(".engine")
        words = [BIN / "build-engine", source, "-o", engines[name], "--runtime", runtime, "--fast"]
        words += ["--max-batch", f"{max_batch}", "--parity-images", parity]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return engines


def compare(engines: dict[str, Engine], batch: int, laps: int, label: str) -> dict[str, list[float]]:
    """Let the engines take turns at a batch size, after a look at their scores.

    Raises:
        NotTheSame: a rewrite changed the scores.
    """
    frames = draw_frames(IMAGE, batch)
    quantiles = uncalibrated(engines[EXPORTED].manifest.maps)
    expected = engines[EXPORTED].infer(list(frames), quantiles)[SCORE]
    turns: dict[str, Turn] = {}
    for name, engine in engines.items():
        found = engine.infer(list(frames), quantiles)[SCORE]
        apart = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not apart <= SAME[engine.manifest.precision]:
            raise NotTheSame(f"{label}, {name}: scores differ by {apart:.1e}")
        if engine.manifest.runtime == "tensorrt":
            turns[name] = repeated(ours(engine, frames))
        else:
            turns[name] = repeated(partial(engine.infer, list(frames), quantiles))
    return take_turns(turns, laps, label)


def gained(times: dict[str, list[float]], name: str) -> str:
    found = ratio(times, EXPORTED, name)
    return f"{found.median:.3f} ({found.p10:.3f}–{found.p90:.3f})"


if __name__ == "__main__":
    main()
