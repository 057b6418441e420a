"""Turns a graph's convolutions into INT8, with ranges that are measured on good images."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from engine_build.bias import border, corrected, runner_of
from engine_build.graph import Graph
from engine_runtime.engine import FRAMES, QUANTILES, Quantiles, uncalibrated
from engine_runtime.open import one_line
from foundation.errors import EngineRefused, InputError
from pictures.frames import Frame, Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in
from pictures.region import seen_region
from pictures.tiles import TileGrid
from pictures.trained_on import trained_on

FEWEST, _MOST = 8, 64
_FEW = 16
"""Input channels of a group up to which a convolution stays FP32: so do depthwise ones, with one each."""
_OUTPUTS_STAY = {"OpTypesToExcludeOutputQuantization": ["Conv"]}
"""What a convolution gives is rounded only where another reads it: features and residual sums are not."""
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def good_frames(folder: Path, graph: Graph) -> tuple[list[Frame], list[Frame]]:
    """Read images of good parts as the model will see them: some to measure ranges on, others to prove on.

    Args:
        folder: at most 64 of its images are read, spread evenly.
        graph: they are cropped to its region of interest; where it has tiles, each image gives one of them.

    Raises:
        InputError: the folder holds fewer than 8 images, or one cannot be read or does not hold the region.
    """
    paths = images_in(folder)
    if len(paths) < FEWEST:
        raise InputError(
            f"--good {folder}: holds {len(paths)} images; "
            f"expected at least {FEWEST}, of which half are for the proof"
        )
    trained = trained_on(graph.metadata)
    view, tiles = seen_region(paths, None, trained).view, trained.tiles
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _MOST)).round().astype(int))
    frames, random = [], np.random.default_rng(0)
    for path in (paths[index] for index in chosen):
        try:
            picture = view.see(read_image(path))
            if tiles is None:
                frames.append(fit(picture, graph.input_size))
            else:
                cut = TileGrid(tiles, Size(*picture.shape[:2])).cut(picture, graph.input_size)
                frames.append(cut[random.integers(len(cut))])
        except InputError as error:
            raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    return frames[::2], frames[1::2]


def quantised(
    graph: Graph, frames: Sequence[Frame], advance: Callable[[], object], *, symmetric: bool = False
) -> bytes:
    """Give the graph with its convolutions in INT8, weights with a scale per channel.

    Convolutions of few channels stay FP32, those that read the picture, the next of XS, and depthwise ones:
    the rounding of few values does not average out (docs/engines.md), and they are a small part of the work.
    So does everything between the convolutions, and what the graph asks to be left; what that reads is
    corrected by its mean shift on the frames.

    Args:
        graph: keeps contract 1, in FP32.
        frames: H×W×3 uint8, BGR; the ranges of all activations are the smallest and largest values on them.
        advance: called once per frame.
        symmetric: without zero points and with biases in FP32, as TensorRT wants it. What a ReLU gives has
            half of the steps then.

    Raises:
        EngineRefused: ONNX Runtime cannot quantise it.
    """
    with tempfile.TemporaryDirectory() as name, _silent_logging():
        source, target = Path(name) / "fp32.onnx", Path(name) / "int8.onnx"
        model = onnx.load_model_from_string(graph.content)
        for node in model.graph.node:
            node.name = node.name or node.output[0]  # nodes that stay in float are given by name
        source.write_bytes(model.SerializeToString())
        try:
            quantize_static(
                source,
                target,
                _Reader(frames, uncalibrated(graph.maps), advance),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=_left_in_fp32(graph, model),
                extra_options=_OUTPUTS_STAY | (_SYMMETRIC if symmetric else {}),
            )
        except Exception as error:  # its exception classes have no ancestor of their own
            raise EngineRefused(f"cannot be quantised: {one_line(error)}") from error
        content = target.read_bytes()
    if not border(graph):
        return content
    return corrected(content, runner_of(content, graph), graph, frames, lambda: None)


def _left_in_fp32(graph: Graph, model: onnx.ModelProto) -> list[str]:
    """Name the convolutions of few channels, and those that the graph asks to be left."""
    few = {
        weight.name for weight in model.graph.initializer if len(weight.dims) == 4 and weight.dims[1] <= _FEW
    }
    exact = graph.fp32_tensors()
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and (node.input[1] in few or node.output[0] in exact)
    ]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime brings no types
    def __init__(self, frames: Sequence[Frame], quantiles: Quantiles, advance: Callable[[], object]) -> None:
        self._frames: Iterator[Frame] = iter(frames)
        self._quantiles = quantiles
        self._advance = advance

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        frame = next(self._frames, None)
        if frame is None:
            return None
        self._advance()
        return {FRAMES: frame[None], QUANTILES: self._quantiles}


@contextmanager
def _silent_logging() -> Iterator[None]:
    """Keep its advice to developers from users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
