"""What it costs in scores to compute a model's operators in half precision: which may, and which may not?

    python benchmarks/half_precision.py model.onnx --images DIR

Runs the graph in FP32 and with more and more operators in half, on the CPU, where ONNX Runtime rounds to half
after each of them. A GPU adds up in FP32 within an operator and rounds its result, too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tqdm import tqdm

from engine_build.graph import read_graph
from engine_build.half import HALF, halved
from engine_build.parity_frames import parity_frames_from
from engine_build.reference import run_reference
from engine_runtime.engine import FRAMES, QUANTILES, SCORE
from engine_runtime.proof import ProofFailed

DISTANCES = HALF | {"Split", "Sub", "Mul", "ReduceMean"}
STEPS = {
    "convolutions, and what lies between them (as built)": HALF,
    "and differences, squares and their means": DISTANCES,
    "and normalisation and maximum: everything": DISTANCES
    | {"Add", "Concat", "Div", "ReduceMax", "Reshape", "Squeeze", "Transpose"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="at most 32 are taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    graph = read_graph(options.model)
    frames = parity_frames_from(options.images, graph.input_size)
    with tqdm(desc="FP32", total=2 * len(frames)) as bar:
        reference = run_reference(graph, frames, bar.update)
    result: dict[str, dict[str, float] | str] = {}
    columns = ["in half", "score", *(f"{name} map" for name in graph.maps)]
    print(f"| {' | '.join(columns)} |\n|---{'|--:' * (len(columns) - 1)}|")
    for name, operators in STEPS.items():
        session = onnxruntime.InferenceSession(halved(graph, operators), providers=["CPUExecutionProvider"])
        largest = dict.fromkeys(graph.outputs, 0.0)
        try:
            for row, frame in enumerate(tqdm(frames, desc=name)):
                answers = session.run(
                    list(graph.outputs), {FRAMES: frame[None], QUANTILES: reference.quantiles}
                )
                found = reference.largest_differences(dict(zip(graph.outputs, answers, strict=True)), [row])
                largest = {output: max(largest[output], found[output]) for output in graph.outputs}
        except ProofFailed as error:
            print(f"| {name} | {error} {'| ' * (len(columns) - 1)}")
            result[name] = str(error)
            continue
        result[name] = largest
        shown = [f"{np.float64(largest[output]):.1e}" for output in (SCORE, *graph.maps.values())]
        print(f"| {name} | {' | '.join(shown)} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
