"""What an engine must show before its file is written: parity, independent batch rows, latency."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine, Quantiles
from engine_runtime.manifest import Precision, Proof
from foundation.errors import WorkFailed
from pictures.frames import Frame, Size

PARITY_LIMIT: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.03, "int8": 0.5}
"""Largest difference from the FP32 graph, as a share of the largest reference value.

INT8 is compared on good parts, whose values are small, so that rounding weighs more than it does on a defect;
half of the largest value tells that something is broken.
"""

_FEWEST_RUNS, _MOST_RUNS, _SECONDS = 7, 50, 1.0


class ProofFailed(WorkFailed):
    """The engine does not compute what its ONNX graph computes."""


@dataclass(frozen=True)
class Reference:
    """What the FP32 graph answers to the parity frames."""

    quantiles: Quantiles
    """Measured on the parity frames as calibration would, so that scores have their usual magnitude; or those
    that a server has inside."""
    outputs: dict[str, NDArray[np.float32]]
    """Every output of contract 1, row i belonging to frame i."""

    @property
    def map_size(self) -> Size:
        """Height and width of the maps."""
        height, width = self.outputs[ANOMALY_MAP].shape[1:]
        return Size(height, width)

    def largest_differences(
        self, found: dict[str, NDArray[np.float32]], rows: Sequence[int]
    ) -> dict[str, float]:
        """Give how far results are from the reference's rows, as a share of each output's largest value.

        Raises:
            ProofFailed: a value is NaN or infinite.
        """
        return {name: _difference(name, found[name], self.outputs[name], rows) for name in self.outputs}


def batch_sizes(max_batch: int) -> list[int]:
    """Give 1, 2, 4 … and ``max_batch`` itself."""
    return sorted({1 << power for power in range(max_batch.bit_length())} | {max_batch})


def proof_steps(frames: int, max_batch: int) -> int:
    """Count how often ``prove`` will call ``advance``."""
    sizes = len(batch_sizes(max_batch))
    return frames * sizes + sizes + sizes


def prove(
    engine: Engine,
    reference: Reference,
    frames: Sequence[Frame],
    advance: Callable[[], object],
) -> Proof:
    """Compare an engine with the reference on every parity frame, in batches of several sizes.

    Each frame goes through the engine in every batch size, in changing rows and company, and must give the
    reference's score and maps each time; then a batch of equal frames must give equal scores.

    Raises:
        ProofFailed: a difference is over the limit, or a value is NaN or infinite.
        EngineFailed: the runtime raised.
    """
    manifest = engine.manifest
    largest: dict[str, float] = dict.fromkeys(manifest.outputs, 0.0)
    for size in batch_sizes(manifest.max_batch):
        for start in range(len(frames)):
            rows = [(start + row) % len(frames) for row in range(size)]
            results = engine.infer([frames[row] for row in rows], reference.quantiles, manifest.outputs)
            differences = reference.largest_differences(results, rows)
            refuse_difference(manifest.precision, differences, size)
            largest = {name: max(largest[name], difference) for name, difference in differences.items()}
            advance()
        equal = engine.infer([frames[0]] * size, reference.quantiles, (SCORE,))[SCORE]
        spread = float(np.ptp(equal)) / _largest(reference.outputs[SCORE])
        if spread > PARITY_LIMIT["fp32"]:
            raise ProofFailed(
                f"batch rows differ: {size} equal frames in a batch give scores from {equal.min():.6g} "
                f"to {equal.max():.6g}"
            )
        advance()
    return Proof(
        parity_frames=len(frames),
        largest_score_difference=largest[SCORE],
        batch_rows_equal=True,
        half_precision_share=engine.half_precision_share(),
        latency_ms={
            size: _latency_ms(engine, reference, frames, size, advance)
            for size in batch_sizes(manifest.max_batch)
        },
    )


def refuse_difference(precision: Precision, differences: Mapping[str, float], size: int) -> None:
    """Hold differences from the reference against the limit.

    Args:
        precision: in which the engine computes.
        differences: see ``Reference.largest_differences``.
        size: of the batch.

    Raises:
        ProofFailed: one is over the limit.
    """
    limit = PARITY_LIMIT[precision]
    for name, difference in differences.items():
        if difference > limit:
            raise ProofFailed(
                f"parity failed: in a batch of {size}, {name} differs from the FP32 graph by "
                f"{difference:.1e} of its largest value; {precision} allows {limit:.0e}"
            )


def _difference(
    name: str, found: NDArray[np.float32], expected: NDArray[np.float32], rows: Sequence[int]
) -> float:
    if not np.isfinite(found).all():
        raise ProofFailed(f"{name} is NaN or infinite in a batch of {len(rows)}")
    return float(np.abs(found - expected[list(rows)]).max()) / _largest(expected)


def _largest(values: NDArray[np.float32]) -> float:
    return max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny))


def _latency_ms(
    engine: Engine,
    reference: Reference,
    frames: Sequence[Frame],
    size: int,
    advance: Callable[[], object],
) -> float:
    batch = [frames[row % len(frames)] for row in range(size)]
    engine.infer(batch, reference.quantiles)
    laps: list[float] = []
    while len(laps) < _FEWEST_RUNS or (len(laps) < _MOST_RUNS and sum(laps) < _SECONDS):
        started = time.perf_counter()
        engine.infer(batch, reference.quantiles)
        laps.append(time.perf_counter() - started)
    advance()
    return round(statistics.median(laps) * 1e3, 3)
