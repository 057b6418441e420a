"""Engines that break: the frames must still get their verdicts."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zmq
from line_rig import free_address, part_image, write_config
from numpy.typing import NDArray

from calibration.calibration_file import load_calibration
from daemon.config import load_config
from daemon.line import Line
from daemon.publisher import Publisher
from engine_runtime.engine import Engine, Quantiles
from engine_runtime.errors import EngineFailed
from engine_runtime.frames import Frame
from engine_runtime.open import open_engine
from verdicts import Health, Verdict, decode


class BreakingEngine:
    """A real engine whose device breaks at the given calls."""

    def __init__(self, engine: Engine, breaks: Callable[[], bool]) -> None:
        self._engine = engine
        self._breaks = breaks
        self.manifest = engine.manifest

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float32]]:
        if self._breaks():
            raise EngineFailed("the device is gone")
        return self._engine.infer(frames, quantiles, outputs)

    def half_precision_share(self) -> float:
        return self._engine.half_precision_share()

    def close(self) -> None:
        self._engine.close()


def run_line(
    folder: Path,
    breaks: Callable[[], bool],
    images: int,
    quantiles: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> tuple[int, list[Verdict], Health, int]:
    """Run a line in this process; give its exit code, what it published and how often engines were opened."""
    for index in range(images):
        part_image(folder / f"parts/{index:02d}.png", bright=False)
    config = load_config(
        write_config(folder, {"top": {"source": "parts", "waiting": 1}}, max_batch=1, publish=free_address())
    )
    opened = 0

    def open_again() -> BreakingEngine:
        nonlocal opened
        opened += 1
        return BreakingEngine(open_engine(config.engine), breaks)

    engine = open_again()
    calibration = load_calibration(config.calibration, engine.manifest.payload_sha256)
    if quantiles is not None:
        calibration = calibration.model_copy(update={"quantiles": quantiles})
    publisher = Publisher(config.publish)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(b"")
        socket.connect(config.publish)
        line = Line(config, calibration, [engine], open_again, publisher)
        code = asyncio.run(line.run())
        messages = []
        while socket.poll(300):
            messages.append(decode(*socket.recv_multipart()))
    verdicts = [message for message in messages if isinstance(message, Verdict)]
    health = [message for message in messages if isinstance(message, Health)][-1]
    return code, verdicts, health, opened


def test_an_engine_that_fails_once_is_opened_anew_and_its_frames_are_faults(line_folder: Path) -> None:
    calls = iter(range(1000))
    code, verdicts, health, opened = run_line(line_folder, lambda: next(calls) == 2, images=8)
    assert code == 0
    assert opened == 2
    assert [(v.decision, v.reason) for v in verdicts if v.decision != "pass"] == [("fault", "engine")]
    assert sorted(v.frame for v in verdicts) == list(range(1, 9))
    assert health.verdicts == {"pass": 7, "reject": 0, "fault": 1}


def test_an_engine_that_keeps_failing_stops_the_line_with_every_frame_closed(line_folder: Path) -> None:
    code, verdicts, health, opened = run_line(line_folder, lambda: True, images=50)
    assert code == 1
    assert opened == 3
    assert {v.decision for v in verdicts} == {"fault"}
    assert [v.frame for v in sorted(verdicts, key=lambda v: v.frame)] == list(range(1, len(verdicts) + 1))
    assert health.state == "stopping"
    assert health.cameras["top"].captured == len(verdicts)
    assert health.waiting == 0


def test_a_score_that_is_no_number_is_an_engine_fault_and_never_a_pass(line_folder: Path) -> None:
    nan = ((0.0, float("nan")), (0.0, 0.1))
    _, verdicts, _, _ = run_line(line_folder, lambda: False, images=1, quantiles=nan)
    assert [(verdict.decision, verdict.reason) for verdict in verdicts] == [("fault", "engine")]
