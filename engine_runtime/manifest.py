from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pictures.frames import Size
from pictures.heatmap import MapGeometry

FORMAT_VERSION: Final = 1

Runtime = Literal["openvino", "onnxruntime", "tensorrt", "kserve"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Device = Literal["cpu", "cuda"]

VERSION_1_MAPS: Final = {"local": "local_map", "global": "global_map"}
"""Of a graph whose metadata name none: map → output that holds it."""
MOST_MAPS: Final = 8
FP32_NODES: Final = "fp32_nodes"
"""Key of the model's metadata: prefixes of the names of nodes that are left in FP32, separated by commas."""

_LONGEST_SIDE = 65_535
MOST_BATCH_BYTES: Final = 1 << 31
"""Of the frames of the largest batch, which are kept in memory."""


def names_in(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Give the names that a key of a model's metadata lists, separated by commas; none without it."""
    listed = metadata.get(key, "")
    return tuple(name.strip() for name in listed.split(",")) if listed.strip() else ()


def _is_possible(size: Size) -> Size:
    if not (0 < size.height <= _LONGEST_SIDE and 0 < size.width <= _LONGEST_SIDE):
        raise ValueError(f"expected sides of 1 to {_LONGEST_SIDE}")
    return size


PossibleSize = Annotated[Size, AfterValidator(_is_possible)]


class Proof(BaseModel):
    """What ``build-engine`` measured on this machine before it wrote the file.

    An engine for a GPU can be built where there is none. What needs the GPU is then None, and is measured
    where the engine is opened for the first time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parity_frames: int = Field(gt=0, description="frames compared with the FP32 ONNX graph")
    largest_score_difference: float | None = Field(
        ge=0, description="relative to the largest reference score; None where it was not run"
    )
    batch_rows_equal: bool | None = Field(
        description="a frame's score depended neither on its row in a batch nor on the other rows;"
        " None where it was not run"
    )
    half_precision_share: float = Field(ge=0, le=1, description="share of convolutions in half precision")
    latency_ms: dict[int, float] = Field(description="batch size → median milliseconds per batch")
    graph_score_difference: float | None = Field(
        default=None,
        ge=0,
        description="of the graph in half precision, run by ONNX Runtime, from the FP32 graph",
    )

    @property
    def complete(self) -> bool:
        """Whether the engine itself was run."""
        return self.largest_score_difference is not None and self.batch_rows_equal is not None


class Measurement(BaseModel):
    """One way to run the model that ``build-engine`` timed on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: Runtime
    precision: Precision
    threads: int = Field(gt=0)
    batch: int = Field(gt=0)
    winograd: int = Field(ge=0, description="convolutions that were rewritten")
    latency_ms: float = Field(gt=0, description="median, per batch")
    fastest_ms: float = Field(gt=0, description="per batch")
    chosen: bool


def _is_server(address: str) -> str:
    try:
        parts = urlsplit(address)
        sound = parts.scheme in {"grpc", "grpcs"} and bool(parts.hostname and parts.port) and not parts.path
    except ValueError:
        sound = False
    if not sound or not address.isprintable():
        raise ValueError("expected grpc://HOST:PORT, or grpcs:// with TLS")
    return address


ServerAddress = Annotated[str, AfterValidator(_is_server)]


class Server(BaseModel):
    """What runs the engine in another process: servers of the Open Inference Protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    addresses: tuple[ServerAddress, ...] = Field(
        min_length=1, max_length=8, description="when one does not answer, the next one is asked"
    )
    model: str = Field(min_length=1, description="its name there")
    version: str = Field(description="of the model there; empty: whichever it chooses")
    timeout_ms: float = Field(gt=0, le=600_000, description="an answer of a server that takes longer is none")


class Manifest(BaseModel):
    """The first entry of an engine file (contract 2)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    model: str = Field(description="name of the model, from the ONNX file's name")
    runtime: Runtime
    runtime_version: str
    library: Literal["tensorrt", "tensorrt_rtx"] | None = Field(
        default=None, description="which of the two built a TensorRT plan; neither reads the other's"
    )
    executed_on: Device = Field(
        default="cpu", description="where it computes; only ONNX Runtime leaves a choice"
    )
    precision: Precision
    input_size: PossibleSize
    map_size: PossibleSize
    max_batch: int = Field(gt=0, le=1024)
    outputs: tuple[str, ...]
    maps: dict[str, str] = Field(
        default=VERSION_1_MAPS,
        min_length=1,
        max_length=MOST_MAPS,
        description="map → the output that holds it before normalisation, in the order of quantiles",
    )
    payload: str = Field(description="name of the payload's entry")
    payload_sha256: str
    source_sha256: str = Field(description="of the ONNX file the engine was built from")
    device: str = Field(description="name of the CPU or GPU the engine was built on")
    compute_capability: str | None = Field(
        default=None, description="of the GPU; None on a CPU, and for any GPU that the library builds for"
    )
    model_metadata: dict[str, str] = Field(default_factory=dict, description="the ONNX file's own metadata")
    built_at: str = Field(description="ISO 8601, UTC")
    tool_version: str
    server: Server | None = Field(default=None, description="of the runtime kserve")
    winograd: dict[str, int] = Field(
        default_factory=dict, description="rewritten convolution, by its output in the ONNX file → tile size"
    )
    threads: int | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="with which it was fastest, where not with all cores; taken unless the config names some",
    )
    measured: tuple[Measurement, ...] = Field(
        default=(), description="what the engine was chosen from; empty when nothing was measured"
    )
    proof: Proof
    parity_sha256: str | None = Field(
        default=None, description="of the entry with parity frames, in an engine whose proof is not complete"
    )

    @property
    def geometry(self) -> MapGeometry:
        """How its maps lie over its frames.

        Raises:
            EngineRefused: the stride that the model names is not a positive number.
        """
        return MapGeometry.of(self.input_size, self.map_size, self.model_metadata)

    @field_validator("maps")
    @classmethod
    def _maps_are_outputs(cls, maps: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        outputs: tuple[str, ...] = info.data.get("outputs", ())
        if not set(maps.values()) <= set(outputs):
            raise ValueError(f"expected maps among the outputs {', '.join(outputs)}")
        return maps

    @field_validator("max_batch")
    @classmethod
    def _batch_fits_into_memory(cls, max_batch: int, info: ValidationInfo) -> int:
        size: Size | None = info.data.get("input_size")
        # It is allocated before the payload is compiled, which would find out that it does not fit.
        if size is not None and max_batch * size.height * size.width * 3 > MOST_BATCH_BYTES:
            raise ValueError(f"expected frames of {size} in at most {MOST_BATCH_BYTES} bytes")
        return max_batch
