"""The brightness model with a runtime that really breaks: its graph fails, hangs or asks for all memory.

What it does depends on the brightest cell of a batch, so a test chooses with the grey of a part.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import onnx
from brightness import SIZE, brightness_model
from onnx import TensorProto, helper, numpy_helper

from engine_runtime.engine_file import read_engine, write_engine

SLOW, FAILS, HANGS, WANTS_ALL_MEMORY = 150, 190, 220, 245
"""Grey levels of a part's spot. All of them would be rejects; SLOW is one, some time later."""
GOOD = 40
"""Grey level of a part without a spot."""


def treacherous_model(path: Path) -> Path:
    model = onnx.load(brightness_model(path))
    graph = model.graph

    def constant(name: str, value: object, dtype: type) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    brightest = node(
        "ReduceMax", ["local_map", constant("all", [0, 1, 2], np.int64)], "brightest", keepdims=0
    )

    def when(grey: int) -> str:
        """1 while the brightest cell has this grey, give or take 5 levels; else 0."""
        distance = node("Sub", [brightest, constant(f"grey{grey}", grey / 255, np.float32)], f"off{grey}")
        size = node("Abs", [distance], f"distance{grey}")
        near = node("Less", [size, constant(f"near{grey}", 5 / 255, np.float32)], f"is{grey}")
        return node("Cast", [near], f"count{grey}", to=TensorProto.INT64)

    # An index outside the tensor: the runtime raises.
    outside = node("Mul", [when(FAILS), constant("far", 1000, np.int64)], "outside")
    failing = node("Gather", [constant("one_value", [0.0], np.float32), outside], "failing")

    # More memory than there is.
    many = node("Mul", [when(WANTS_ALL_MEMORY), constant("huge", 2**50, np.int64)], "many")
    shape = node("Unsqueeze", [many, constant("first_axis", [0], np.int64)], "shape")
    memory = node("ReduceSum", [node("ConstantOfShape", [shape], "memory")], "used", keepdims=0)

    # A loop that does not end before the sun does, or one that does.
    rounds = node(
        "Add",
        [
            node("Mul", [when(HANGS), constant("for_ever", 2**60, np.int64)], "endless"),
            node("Mul", [when(SLOW), constant("for_a_while", 50_000, np.int64)], "slow"),
        ],
        "rounds",
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["sum_in", "sum_in"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    nothing = constant("nothing", 0.0, np.float32)
    looped = node("Loop", [rounds, constant("go", True, np.bool_), nothing], "looped", body=body)

    # The score depends on all of it, and changes by nothing.
    trouble = node("Add", [node("Add", [failing, memory], "failing_memory"), looped], "trouble")
    for old in graph.node:
        if "score" in old.output:
            old.output[0] = "calm_score"
    node("Add", ["calm_score", trouble], "score")
    onnx.save(model, path)
    return path


def draw_parts(folder: Path, *greys: int) -> None:
    """Draw parts with a spot of these greys, in this order."""
    folder.mkdir()
    for index, grey in enumerate(greys):
        picture = np.full((SIZE, SIZE, 3), GOOD, np.uint8)
        picture[16:48, 16:48] = grey
        cv2.imwrite(str(folder / f"{index:04d}.png"), picture)


def make_treacherous(folder: Path) -> None:
    """Put the treacherous engine in the place of a line folder's brightness engine, with its calibration."""
    replace_engine(folder, treacherous_model(folder / "treacherous.onnx").read_bytes())


def replace_engine(folder: Path, payload: bytes) -> None:
    """Put another graph into a line folder's engine, and the calibration on it."""
    engine, calibration = folder / "brightness.engine", folder / "brightness.calibration.yaml"
    manifest, _ = read_engine(engine)
    found = hashlib.sha256(payload).hexdigest()
    write_engine(engine, manifest.model_copy(update={"payload_sha256": found}), payload)
    calibration.write_text(calibration.read_text().replace(manifest.payload_sha256, found))
