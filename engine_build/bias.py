"""Corrects what a low precision shifts, where the nodes that stay FP32 begin.

Rounded weights and activations move the features of all good parts by nearly the same amounts (Nagel et al.
2019, section 4.2). A defect is far from good parts and hardly changes; but of good parts everything that a
density measures is small, and such a shift can be as large as that. So its mean over good parts is taken
away, cell by cell.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_build.graph import Graph
from engine_runtime.engine import FRAMES, QUANTILES, uncalibrated
from engine_runtime.manifest import FP32_NODES, names_in
from pictures.frames import Frame

Floats = NDArray[np.float32]
Run = Callable[[Frame], Mapping[str, Floats]]
"""Gives the tensors of a border for one frame."""


def border(graph: Graph) -> list[str]:
    """Name the tensors made of the frames that nodes which stay FP32 take from nodes which do not.

    It is empty where the model asks for no such nodes.
    """
    exact = graph.fp32_tensors()
    of_frames, found = {FRAMES}, []
    for node in onnx.load_model_from_string(graph.content).graph.node:
        if of_frames.isdisjoint(node.input) or node.op_type == "Shape":  # how many frames: nothing is rounded
            continue
        of_frames.update(node.output)
        if node.output[0] in exact:
            found += [name for name in node.input if name in of_frames - exact - {FRAMES}]
    return list(dict.fromkeys(found))


def corrected(
    content: bytes, low: Run, graph: Graph, frames: Sequence[Frame], advance: Callable[[], object]
) -> bytes:
    """Add to each tensor of the border what it lacks in a low precision, in the mean over good parts.

    Args:
        content: the graph as it will be run.
        low: runs it in that precision.
        graph: in FP32.
        frames: of good parts, H×W×3 uint8, BGR.
        advance: called once per frame.
    """
    exact = runner_of(graph.content, graph)
    missing: dict[str, NDArray[np.float64]] = {}
    for frame in frames:
        found = low(frame)
        for name, values in exact(frame).items():
            apart = (values - found[name]).astype(np.float64) / len(frames)
            missing[name] = missing.get(name, 0) + apart
        advance()
    return _with_added(content, graph, {name: values.astype(np.float32) for name, values in missing.items()})


def runner_of(content: bytes, graph: Graph) -> Run:
    """Run a graph up to its border, each node in the type that it has."""
    names = border(graph)
    options = onnxruntime.SessionOptions()
    # Sums of 8-bit products would saturate on a CPU without VNNI: that is the runtime's, not the graph's.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        up_to_border(content, graph), options, providers=["CPUExecutionProvider"]
    )
    quantiles = uncalibrated(graph.maps)

    def run(frame: Frame) -> Mapping[str, Floats]:
        given = {FRAMES: frame[None], QUANTILES: quantiles}
        return dict(zip(names, session.run(names, given), strict=True))

    return run


def up_to_border(content: bytes, graph: Graph) -> bytes:
    """Give a graph whose outputs are the tensors of the border."""
    model = onnx.load_model_from_string(content)
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in border(graph)
    )
    shortened: bytes = model.SerializeToString()
    return shortened


def bf16_runner(graph: Graph) -> Run:
    """Run a graph up to its border as OpenVINO does in bfloat16.

    Raises:
        EngineRefused: this CPU has no bfloat16.
    """
    from engine_runtime.openvino import runner

    names, quantiles = border(graph), uncalibrated(graph.maps)
    infer = runner(up_to_border(graph.content, graph), None, "bf16")

    def run(frame: Frame) -> Mapping[str, Floats]:
        found = cast("Mapping[str, Floats]", infer({FRAMES: frame[None], QUANTILES: quantiles}))
        return {name: np.array(found[name]) for name in names}

    return run


def _with_added(content: bytes, graph: Graph, missing: Mapping[str, Floats]) -> bytes:
    """Let all nodes that stay FP32 read the tensors of the border with something added."""
    model = onnx.load_model_from_string(content)
    exact = graph.fp32_tensors()
    (prefix, *_) = names_in(graph.metadata, FP32_NODES)
    added = {name: f"{prefix}{name}/corrected" for name in missing}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in exact:
            for place, name in enumerate(node.input):
                if name in added:
                    node.input[place] = added[name]
        nodes.append(node)
        for name in node.output:
            if name in missing:
                lacks = f"{prefix}{name}/lacks"
                model.graph.initializer.append(numpy_helper.from_array(missing[name], lacks))
                nodes.append(helper.make_node("Add", [name, lacks], [added[name]], name=added[name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    changed: bytes = model.SerializeToString()
    return changed
