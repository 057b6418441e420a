"""Chooses runtime and tile sizes by measuring them on the machine at hand.

First every kind of convolution is timed alone, directly and with each tile size. A convolution alone is not
the same convolution among others, where a runtime may keep its own layout from layer to layer; so whole
graphs decide: as it stands, with the rewrites that win clearly, and with all that win, in alternation. Then,
while there is time, the best of them is tried with one kind more, or one less, rewritten.

The fastest lap counts, because whatever else a machine does can only slow a lap down.
"""

import hashlib
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from engine_build.device import cpu_name
from engine_build.graph import Graph
from engine_build.winograd.rewrite import Block, find_blocks, isolated, rewrite
from engine_runtime.engine import FRAMES, QUANTILES, Runner, uncalibrated
from engine_runtime.manifest import Measurement, Precision, Runtime
from engine_runtime.open import one_line, runtime_module
from foundation.errors import EngineFailed, EngineRefused, InputError
from pictures.frames import Frame

Aim = Literal["latency", "throughput"]
CPU_RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime")

_WORTH_TIMING = 0.005
"""Share of all multiplications below which a convolution is left as it is."""
_WINS, _WINS_CLEARLY = 1.05, 1.3
_SIMPLER_UNLESS = 1.03
"""A rewritten graph must be this much faster than the graph as it stands."""
_FEWEST_LAPS, _MOST_LAPS = 3, 30

Inputs = Mapping[str, NDArray[Any]]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Candidate:
    """One way to run the model."""

    runtime: Runtime
    content: bytes
    """What the runtime loads: the ONNX graph, rewritten or not; a TensorRT plan."""
    tiles: Mapping[str, int]
    """Rewritten convolution, by its output → tile size."""
    laps_s: tuple[float, ...] = ()
    """Measured with whole frames; empty before that."""
    precision: Precision = "fp32"
    threads: int | None = None
    """It was measured with; those of the settings when None."""
    half_precision_share: float = 0.0
    """Of its convolutions, where the types of the graph say it; elsewhere the engine does."""
    graph_score_difference: float | None = None
    """Of the graph in its types, run without the device, from the FP32 graph; None where that is the same."""

    @property
    def runs_here(self) -> bool:
        """Whether this machine has what it runs on."""
        return True

    def described(self) -> dict[str, Any]:
        """Give the manifest's entries that say what is run, and by what."""
        return {
            "runtime": self.runtime,
            "runtime_version": runtime_module(self.runtime).VERSION,
            "precision": self.precision,
            "payload": "model.onnx",
            "payload_sha256": hashlib.sha256(self.content).hexdigest(),
            "device": cpu_name(),
            "winograd": dict(self.tiles),
            "threads": self.threads,
        }

    @property
    def rank_s(self) -> float:
        """Its fastest lap, with a handicap where the graph was rewritten: that must pay."""
        return min(self.laps_s) * (_SIMPLER_UNLESS if self.tiles else 1.0)


class Settings(NamedTuple):
    """How to measure."""

    runtimes: Sequence[Runtime]
    threads: int
    batch: int
    """Frames per batch of the graphs that are compared."""
    limit_s: float
    """Loading a graph is not interrupted, so a measurement may end a little later."""
    fewer_threads: Sequence[int] = ()
    """Also tried, with the best graph: of cores that share what they compute with, half may be faster."""


def _as_it_stands(graph: Graph, runtime: Runtime) -> Candidate:
    """Give the graph without any rewrite, unmeasured."""
    return Candidate(runtime, graph.content, {})


def candidates(graph: Graph, frame: Frame, settings: Settings) -> list[Candidate]:
    """Measure every way to run a graph within a time limit.

    Args:
        graph: keeps contract 1.
        frame: H×W×3 uint8, what the graph is timed on.
        settings: how to measure.

    Returns:
        Fastest first, at least one.

    Raises:
        InputError: none of the runtimes is installed and takes the graph.
    """
    started = time.monotonic()
    model = onnx.load_model_from_string(graph.content)
    inputs: Inputs = {FRAMES: np.stack([frame] * settings.batch), QUANTILES: uncalibrated(graph.maps)}
    blocks = find_blocks(model, _shapes(model, {FRAMES: frame[None], QUANTILES: uncalibrated(graph.maps)}))
    kinds = _kinds(blocks)
    found: list[Candidate] = []
    refusals: list[InputError] = []
    runtimes = len(settings.runtimes)
    # Per runtime two steps for each kind and one for whole graphs; one more to compare the runtimes.
    with tqdm(desc="measuring", total=runtimes * (2 * len(kinds) + 1) + 1, leave=False, disable=None) as bar:
        for index, runtime in enumerate(settings.runtimes):
            share = settings.limit_s * 0.9 / runtimes
            ends = started + share * (index + 1)
            search = _Search(runtime, graph, model, blocks, kinds, inputs, settings.threads)
            try:
                found += search.run(alone_until=ends - share / 2, until=ends, advance=bar.update)
            except EngineRefused as refusal:
                refusals.append(refusal)
        if not found:
            raise refusals[0]
        found.sort(key=lambda candidate: candidate.rank_s)
        # The runtimes took turns one after the other; their best must meet at the same time.
        best = {candidate.runtime: candidate for candidate in reversed(found)}
        if len(best) > 1:
            left = started + settings.limit_s - time.monotonic()
            again = _timed(list(best.values()), inputs, settings.threads, min(left, 5.0))
            found = [candidate for candidate in found if candidate not in best.values()] + again
        bar.update()
    found.sort(key=lambda candidate: candidate.rank_s)
    if settings.fewer_threads:
        found[:1] = _with_fewer_threads(found[0], inputs, settings)
    return sorted(found, key=lambda candidate: candidate.rank_s)


def _with_fewer_threads(best: Candidate, inputs: Inputs, settings: Settings) -> list[Candidate]:
    others = [replace(best, threads=threads, laps_s=()) for threads in settings.fewer_threads]
    return _timed([best, *others], inputs, settings.threads, min(settings.limit_s, 2.0))


def quantised_candidates(graph: Graph, content: bytes, frame: Frame, settings: Settings) -> list[Candidate]:
    """Measure a graph in INT8 in every runtime, in turns with the FP32 graph as it stands.

    Args:
        graph: in FP32.
        content: the same in INT8.
        frame: H×W×3 uint8, what they are timed on.
        settings: how to measure.

    Returns:
        Those in INT8 first, each kind fastest first.

    Raises:
        InputError: a runtime is not installed or does not take a graph.
    """
    inputs: Inputs = {FRAMES: np.stack([frame] * settings.batch), QUANTILES: uncalibrated(graph.maps)}
    graphs = [
        candidate
        for runtime in settings.runtimes
        for candidate in (Candidate(runtime, content, {}, precision="int8"), _as_it_stands(graph, runtime))
    ]
    found = _timed(graphs, inputs, settings.threads, min(settings.limit_s, 5.0))
    return sorted(found, key=lambda candidate: (candidate.precision != "int8", candidate.rank_s))


def measurements(
    found: Sequence[Candidate], chosen: Candidate, settings: Settings
) -> tuple[Measurement, ...]:
    """Lay out what was measured, for the manifest."""
    return tuple(
        Measurement(
            runtime=candidate.runtime,
            precision=candidate.precision,
            threads=candidate.threads or settings.threads,
            batch=settings.batch,
            winograd=len(candidate.tiles),
            latency_ms=round(statistics.median(candidate.laps_s) * 1e3, 3),
            fastest_ms=round(min(candidate.laps_s) * 1e3, 3),
            chosen=candidate is chosen,
        )
        for candidate in found
        if candidate.laps_s
    )


def _kinds(blocks: Sequence[Block]) -> list[list[Block]]:
    """Group blocks that do the same on other weights, those with most to win first."""
    kinds: dict[Hashable, list[Block]] = {}
    for block in blocks:
        key = (block.channels, block.kernel, block.size, block.pads, block.relu, block.pooled)
        kinds.setdefault(key, []).append(block)
    total = sum(block.multiplications for block in blocks)
    worth = [kind for kind in kinds.values() if kind[0].multiplications >= _WORTH_TIMING * total]
    return sorted(worth, key=lambda kind: kind[0].multiplications * len(kind), reverse=True)


@dataclass(frozen=True)
class _Search:
    """The search for the best rewrite of a graph in one runtime."""

    runtime: Runtime
    graph: Graph
    model: onnx.ModelProto
    blocks: list[Block]
    kinds: Sequence[Sequence[Block]]
    inputs: Inputs
    threads: int

    def run(self, *, alone_until: float, until: float, advance: Callable[[], object]) -> list[Candidate]:
        """Give the graph as it stands and the rewrites worth keeping, all timed.

        Args:
            alone_until: ``time.monotonic()`` after which no further convolution is timed alone.
            until: when to end.
            advance: called twice for each kind and once more.
        """
        tiles, every, sure = self._alone(alone_until, advance)
        choices = [choice for choice in (every, sure if sure != every else {}) if choice]
        graphs = [_as_it_stands(self.graph, self.runtime), *(self._rewritten(choice) for choice in choices)]
        found = _timed(graphs, self.inputs, self.threads, min(3.0, until - time.monotonic()))
        advance()
        plain, best = found[0], min(found, key=lambda candidate: candidate.rank_s)
        for kind, tile in zip(self.kinds, tiles, strict=True):
            if tile and time.monotonic() < until:
                names = {block.output for block in kind}
                choice = {name: size for name, size in best.tiles.items() if name not in names}
                if len(choice) == len(best.tiles):
                    choice |= dict.fromkeys(names, tile)
                other = self._rewritten(choice) if choice else replace(plain, laps_s=())
                best, other = _timed(
                    [best, other], self.inputs, self.threads, min(1.0, until - time.monotonic())
                )
                best = min(best, other, key=lambda candidate: candidate.rank_s)
            advance()
        kept = [candidate for candidate in found if candidate.tiles != best.tiles]
        return [*kept, best]

    def _rewritten(self, choice: dict[str, int]) -> Candidate:
        content = rewrite(self.model, self.blocks, choice).SerializeToString()
        return Candidate(self.runtime, content, choice)

    def _alone(
        self, until: float, advance: Callable[[], object]
    ) -> tuple[list[int | None], dict[str, int], dict[str, int]]:
        """Time every kind of convolution alone.

        Returns:
            Its best tile size per kind, None where the time was over; the choice of all rewrites that win;
            the choice of those that win clearly.
        """
        tiles: list[int | None] = []
        every: dict[str, int] = {}
        sure: dict[str, int] = {}
        for kind in self.kinds:
            tile, gain = None, 0.0
            if time.monotonic() < until:
                tile, gain = _best_tile(self.runtime, self.model, kind[0], self.threads, until)
            names = [block.output for block in kind]
            if tile and gain >= _WINS:
                every |= dict.fromkeys(names, tile)
            if tile and gain >= _WINS_CLEARLY:
                sure |= dict.fromkeys(names, tile)
            tiles.append(tile)
            advance()
        return tiles, every, sure


def _best_tile(
    runtime: Runtime, model: onnx.ModelProto, block: Block, threads: int, deadline: float
) -> tuple[int, float]:
    """Give the fastest tile size of a block and how many times faster than directly it is."""
    direct = isolated(model, block)
    shape = (1, block.channels[0], *block.size)
    name = block.conv.input[0]
    alone = find_blocks(direct, {name: shape})
    load = runtime_module(runtime).runner
    runners: dict[int, Runner] = {}
    try:
        runners[0] = load(direct.SerializeToString(), threads)
        for tile in block.tiles:
            content = rewrite(direct, alone, {block.output: tile}).SerializeToString()
            runners[tile] = load(content, threads)
        inputs = {name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
        laps = _alternate(runners, inputs, min(1.0, deadline - time.monotonic()))
    except Exception as error:  # every runtime has its own exceptions
        raise EngineRefused(f"{runtime} does not run its convolutions: {one_line(error)}") from error
    fastest = {tile: min(times) for tile, times in laps.items()}
    tile = min(runners.keys() - {0}, key=lambda tile: fastest[tile])
    return tile, fastest[0] / fastest[tile]


def _timed(graphs: Sequence[Candidate], inputs: Inputs, threads: int, seconds: float) -> list[Candidate]:
    """Time whole graphs in alternation, ``_FEWEST_LAPS`` times at least."""
    try:
        runners = {
            index: runtime_module(graph.runtime).runner(graph.content, graph.threads or threads)
            for index, graph in enumerate(graphs)
        }
        laps = _alternate(runners, inputs, seconds)
    except InputError:
        raise
    except Exception as error:  # every runtime has its own exceptions
        raise EngineRefused(f"{graphs[0].runtime} does not accept it: {one_line(error)}") from error
    return [replace(graph, laps_s=tuple(laps[index])) for index, graph in enumerate(graphs)]


def _alternate(runners: Mapping[Key, Runner], inputs: Inputs, seconds: float) -> dict[Key, list[float]]:
    """Run everything in turn, so that what else the machine does disturbs all alike."""
    for run in runners.values():
        run(inputs)
    laps: dict[Key, list[float]] = {key: [] for key in runners}
    ends = time.perf_counter() + seconds
    for lap in range(_MOST_LAPS):
        for key, run in runners.items():
            started = time.perf_counter()
            run(inputs)
            laps[key].append(time.perf_counter() - started)
        if lap + 1 >= _FEWEST_LAPS and time.perf_counter() > ends:
            break
    return laps


def _shapes(model: onnx.ModelProto, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """Give the shape of every tensor that a convolution reads, for one frame, by running the graph."""
    names = list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "Conv"))
    if not names:
        return {}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(names, dict(inputs))
    except Exception as error:  # ONNX Runtime's exception classes have no ancestor of their own
        raise EngineFailed(f"ONNX Runtime does not show the graph's shapes: {one_line(error)}") from error
    return {name: result.shape for name, result in zip(names, results, strict=True)}
