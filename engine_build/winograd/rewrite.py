"""Replaces convolutions of an ONNX graph by Winograd's: the same outputs from a fraction of the products.

A convolution becomes: input transform, a strided Conv with fixed weights that gives one plane per frequency;
one MatMul over the channels per frequency, batched; output transform, a MatMul that mixes the frequencies'
planes. Three choices keep copies away:

* The channels are stacked as rows of one tall image, so the input transform is a Conv with a single input
  channel whose output already stands frequency by frequency. Each channel is padded to a whole number of
  strides; windows that reach into the next channel only make outputs that are cut off.
* Bias, ReLU and a 2×2 average pooling are done on planes, before the tiles are put together, so that pooling
  leaves a quarter of the numbers to be moved.
* Convolutions that read the same tensor share its transform.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_build.winograd.transforms import KERNELS, tiles, transforms

_OLDEST_OPSET = 13
_PREFIX = "winograd"


@dataclass(frozen=True)
class Block:
    """A convolution that can be rewritten, with a ReLU and a 2×2 average pooling where they follow."""

    output: str
    """Name of the block's last tensor, by which it is known."""
    conv: onnx.NodeProto
    nodes: tuple[str, ...]
    """The first output of each of its nodes."""
    channels: tuple[int, int]
    """In and out."""
    kernel: int
    size: tuple[int, int]
    """Height and width of the input, without padding."""
    pads: tuple[int, int, int, int]
    """Top, left, bottom, right."""
    relu: bool
    pooled: bool

    @property
    def convolved(self) -> tuple[int, int]:
        """Height and width of what the convolution gives, before pooling."""
        top, left, bottom, right = self.pads
        height, width = self.size
        return height + top + bottom - self.kernel + 1, width + left + right - self.kernel + 1

    @property
    def multiplications(self) -> int:
        """Products of the direct convolution, per image."""
        height, width = self.convolved
        return self.channels[0] * self.channels[1] * self.kernel**2 * height * width

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tile sizes that fit: pooling needs even ones."""
        return tuple(tile for tile in tiles(self.kernel) if not (self.pooled and tile % 2))


def find_blocks(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[Block]:
    """Find the convolutions that can be rewritten: stride, dilation and group 1, square 3×3 or 4×4 kernels.

    Args:
        model: any ONNX model; from opset 13 on and without control flow, else nothing is found.
        shapes: N×C×H×W of the tensors that convolutions read; what is not named is left alone.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    nested = any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)
    if opset < _OLDEST_OPSET or nested:
        return []
    weights = {
        weight.name: tuple(weight.dims)
        for weight in model.graph.initializer
        if weight.data_type == TensorProto.FLOAT
    }
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    readers = {name: node for node in model.graph.node for name in node.input}

    def follower(name: str, operator: str) -> onnx.NodeProto | None:
        # A tensor that something else wants too must stay.
        node = readers.get(name)
        return node if node is not None and uses[name] == 1 and node.op_type == operator else None

    blocks = []
    for conv in model.graph.node:
        if conv.op_type != "Conv" or conv.domain not in ("", "ai.onnx"):
            continue
        shape, dims = shapes.get(conv.input[0], ()), weights.get(conv.input[1], ())
        biased_by_constant = len(conv.input) < 3 or not conv.input[2] or conv.input[2] in weights
        pads = _pads(conv)
        if len(shape) != 4 or len(dims) != 4 or dims[2] != dims[3] or dims[2] not in KERNELS:
            continue
        if pads is None or not biased_by_constant:
            continue
        nodes = [conv]
        relu = follower(conv.output[0], "Relu")
        nodes += [relu] if relu else []
        pool = follower(nodes[-1].output[0], "AveragePool")
        nodes += [pool] if pool and _halves(pool) else []
        block = Block(
            output=nodes[-1].output[0],
            conv=conv,
            nodes=tuple(node.output[0] for node in nodes),
            channels=(dims[1], dims[0]),
            kernel=dims[2],
            size=(shape[2], shape[3]),
            pads=pads,
            relu=relu is not None,
            pooled=nodes[-1].op_type == "AveragePool",
        )
        if min(block.convolved) >= 1 + block.pooled:
            blocks.append(block)
    return blocks


def rewrite(model: onnx.ModelProto, blocks: list[Block], choice: Mapping[str, int]) -> onnx.ModelProto:
    """Copy a model with the chosen blocks rewritten.

    Args:
        model: the model in which ``blocks`` were found.
        blocks: from ``find_blocks``.
        choice: a block's output → its tile size; blocks that are not named stay as they are.
    """
    chosen = {block.conv.output[0]: block for block in blocks if block.output in choice}
    weights = {weight.name: weight for weight in model.graph.initializer}
    replaced = {name for block in chosen.values() for name in block.nodes}
    emitted = _Emitter()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        block = chosen.get(node.output[0])
        if block is not None:
            tile = choice[block.output]
            kernel = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
            biased = len(node.input) > 2 and node.input[2]
            bias = numpy_helper.to_array(weights[node.input[2]]) if biased else None
            nodes += emitted.block(block, tile, kernel, bias)
        elif node.output[0] not in replaced:
            nodes.append(node)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    listed = {value.name for value in model.graph.input}
    kept = [weight for name, weight in weights.items() if name in read or name in listed]
    result.graph.initializer.extend([*kept, *emitted.constants.values()])
    return result


def isolated(model: onnx.ModelProto, block: Block) -> onnx.ModelProto:
    """Cut a block out into a model of its own, in which ``find_blocks`` finds just this one."""
    nodes = [node for node in model.graph.node if node.output and node.output[0] in block.nodes]
    read = {name for node in nodes for name in node.input}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "block",
        [value(block.conv.input[0], TensorProto.FLOAT, ["N", block.channels[0], *block.size])],
        [value(block.output, TensorProto.FLOAT, None)],
        [weight for weight in model.graph.initializer if weight.name in read],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


class _Emitter:
    """Makes nodes and constants; what was made before under the same name is shared."""

    def __init__(self) -> None:
        self.constants: dict[str, onnx.TensorProto] = {}
        self._transformed: dict[tuple[object, ...], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def block(
        self, block: Block, tile: int, kernel: NDArray[np.float64], bias: NDArray[np.float32] | None
    ) -> list[onnx.NodeProto]:
        """Emit all nodes of a block; the last gives ``block.output``."""
        self._nodes = []
        name = f"{_PREFIX}/{block.output}"
        matrices = transforms(tile, block.kernel)
        made = block.channels[1]
        grid = _Grid(block, tile)
        spectrum = self._input_transform(block, tile, grid)
        frequencies = _transformed_weights(kernel, matrices.weights)
        products = self._node(
            "MatMul", [self._constant(f"{name}/weights", frequencies), spectrum], f"{name}/products"
        )
        planes = self._planes(
            name, products, _kronecker(matrices.outputs), f"tile{tile}_{block.kernel}/outputs"
        )
        if bias is not None and np.any(bias):
            shaped = self._reshape(planes, f"{name}/channels", (0, tile**2, made, grid.cells))
            planes = self._node(
                "Add", [shaped, self._constant(f"{name}/bias", bias[:, None])], f"{name}/biased"
            )
        if block.relu:
            planes = self._node("Relu", [planes], f"{name}/relu")
        height, width = block.convolved
        if block.pooled:
            tile, height, width = tile // 2, height // 2, width // 2
            planes = self._planes(name, planes, _pooling(tile), f"tile{tile}/pooling")
        self._put_together(block, planes, (tile, grid), (height, width))
        return self._nodes

    def _input_transform(self, block: Block, tile: int, grid: "_Grid") -> str:
        """N×C×H×W → N × frequencies × C × cells."""
        top, left, _, _ = block.pads
        height, width = block.size
        key = (block.conv.input[0], tile, block.kernel, block.size, block.pads)
        if key in self._transformed:
            return self._transformed[key]
        name = f"{_PREFIX}/{block.output}"
        x = block.conv.input[0]
        below = grid.rows * tile - height - top
        if top or below:
            x = self._padded(x, name, top, below)
        window = tile + block.kernel - 1
        tall = self._reshape(x, f"{name}/tall", (0, 1, block.channels[0] * grid.rows * tile, width))
        fixed = _kronecker(transforms(tile, block.kernel).inputs).reshape(-1, 1, window, window)
        right = max(0, (grid.columns - 1) * tile + window - width - left)
        spectrum = self._node(
            "Conv",
            [tall, self._constant(f"tile{tile}_{block.kernel}/inputs", fixed)],
            f"{name}/windows",
            strides=[tile, tile],
            # The last channel's last windows reach below the image.
            pads=[0, left, window - tile, right],
        )
        shape = (0, window**2, block.channels[0], grid.cells)
        self._transformed[key] = self._reshape(spectrum, f"{name}/spectrum", shape)
        return self._transformed[key]

    def _padded(self, x: str, name: str, top: int, below: int) -> str:
        amounts = np.array([0, 0, top, 0, 0, 0, max(below, 0), 0], np.int64)
        return self._node("Pad", [x, self._constant(f"{name}/rows", amounts)], f"{name}/padded")

    def _planes(self, name: str, x: str, mixing: NDArray[np.float64], constant: str) -> str:
        """Mix planes: N × planes × … → N × rows of ``mixing`` × the rest, flat."""
        flat = self._reshape(x, f"{name}/{constant}/flat", (0, mixing.shape[1], -1))
        return self._node("MatMul", [self._constant(constant, mixing), flat], f"{name}/{constant}")

    def _put_together(
        self, block: Block, planes: str, layout: tuple[int, "_Grid"], size: tuple[int, int]
    ) -> None:
        """N × tile² × C × cells → N×C×H×W, named as the block's output."""
        tile, grid = layout
        name, made = f"{_PREFIX}/{block.output}", block.channels[1]
        # Two transpositions that each move one axis: ONNX Runtime does them by blocks, many times faster than
        # the one that would do for both.
        split = self._reshape(planes, f"{name}/split", (0, tile, tile, made * grid.cells))
        pixels = self._node("Transpose", [split], f"{name}/pixels", perm=[0, 1, 3, 2])
        lines = self._reshape(pixels, f"{name}/lines", (0, tile, made * grid.rows, grid.columns * tile))
        woven = self._node("Transpose", [lines], f"{name}/woven", perm=[0, 2, 1, 3])
        whole = (grid.rows * tile, grid.columns * tile)
        if whole == size:
            self._reshape(woven, block.output, (0, made, *size))
            return
        image = self._reshape(woven, f"{name}/image", (0, made, *whole))
        bounds = [
            self._constant(f"{name}/{part}", np.array(values, np.int64))
            for part, values in (("from", (0, 0)), ("to", size), ("axes", (2, 3)))
        ]
        self._node("Slice", [image, *bounds], block.output)

    def _reshape(self, x: str, output: str, shape: tuple[int, ...]) -> str:
        return self._node(
            "Reshape", [x, self._constant(f"{output}/shape", np.array(shape, np.int64))], output
        )

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        name = name if name.startswith(_PREFIX) else f"{_PREFIX}/{name}"
        if name not in self.constants:
            floating = np.issubdtype(values.dtype, np.floating)
            values = np.ascontiguousarray(values, dtype=np.float32 if floating else np.int64)
            self.constants[name] = numpy_helper.from_array(values, name)
        return name


class _Grid:
    """How many tiles a block's output is cut into; the last row of tiles may be one that is cut off."""

    def __init__(self, block: Block, tile: int) -> None:
        height, width = block.convolved
        wanted = -(-height // tile)
        self.rows = max(wanted, -(-(block.size[0] + max(block.pads[0], block.pads[2])) // tile))
        self.columns = -(-width // tile)
        self.cells = self.rows * self.columns


def _transformed_weights(kernel: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Out×in×r×r → n²×out×in."""
    spectrum: NDArray[np.float64] = np.einsum("ui,vj,ocij->uvoc", matrix, matrix, kernel, optimize=True)
    return spectrum.reshape(-1, *kernel.shape[:2])


def _kronecker(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.kron(matrix, matrix), np.float64)


def _pooling(tile: int) -> NDArray[np.float64]:
    """The mean of 2×2 neighbours of a tile of twice this size."""
    return _kronecker(np.asarray(np.kron(np.eye(tile), [[0.5, 0.5]]), np.float64))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _pads(conv: onnx.NodeProto) -> tuple[int, int, int, int] | None:
    """Give the padding, or None where the convolution is not of the kind that can be rewritten."""
    found = _attributes(conv)
    if found.get("group", 1) != 1 or found.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", b""):
        return None
    if found.get("strides", [1, 1]) != [1, 1] or found.get("dilations", [1, 1]) != [1, 1]:
        return None
    pads = found.get("pads", [0, 0, 0, 0])
    return (pads[0], pads[1], pads[2], pads[3]) if len(pads) == 4 and min(pads) >= 0 else None


def _halves(pool: onnx.NodeProto) -> bool:
    found = _attributes(pool)
    return (
        found.get("kernel_shape") == [2, 2]
        and found.get("strides") == [2, 2]
        and found.get("dilations", [1, 1]) == [1, 1]
        and found.get("ceil_mode", 0) == 0
        and not any(found.get("pads", [0]))
        and found.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID", b"")
    )
