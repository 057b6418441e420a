"""Lives of a line at random: whatever happens, in whichever order, every frame gets one verdict, once.

Each life has a seed. ``pytest tests/faults/test_faults_at_random.py --lives 100`` lives more of them.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import camera_processes
from treacherous import FAILS, GOOD, HANGS, SLOW, draw_parts, make_treacherous

from daemon.journal.reader import JournalReader
from faults.trial import Row, Trial, health
from verdicts import ControlRefused, ControlSilent, LineControl, LineSilent, Verdict, acknowledged
from verdicts.verdict import Reason, decode_verdict

Camera = dict[str, Any]
EVENTS = 20
CAMERAS = ("top", "side", "back")
REASONS: tuple[Reason, ...] = ("camera", "engine", "overload", "deadline", "shutdown")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(metafunc.config.getoption("lives")))


class Life:
    """What happens to a line. Half of them have an engine that breaks, the others cameras that do."""

    def __init__(self, trial: Trial, seed: int) -> None:
        self.happened: list[str] = []
        self._trial = trial
        self._chance = random.Random(seed)
        self._kinds: list[Callable[[], Camera]] = [
            lambda: {"source": "good", "fps": 50, "loop": True},
            lambda: {"source": "good", "fps": 50},
            lambda: {"source": "good", "fps": 200, "loop": True, "waiting": 1},
            lambda: {"source": "/dev/video97"},
        ]
        draw_parts(trial.folder / "good", *[GOOD] * 5)
        self._calibrations = ["brightness.calibration.yaml", "other.calibration.yaml"]
        if seed % 2:
            make_treacherous(trial.folder)
            draw_parts(trial.folder / "bad", *[GOOD] * 30, FAILS, *[GOOD] * 15, HANGS, *[GOOD] * 30)
            draw_parts(trial.folder / "slow", *[GOOD] * 5, SLOW, SLOW)
            self._kinds += [lambda: {"source": "bad", "fps": 50}, lambda: {"source": "slow", "fps": 30}]
        else:
            self._kinds += [
                lambda: self._belt("crash"),
                lambda: self._belt("frozen", frozen_after=5),
                lambda: self._belt("hang", stalled_after_s=0.5),
            ]
        other = yaml.safe_load((trial.folder / self._calibrations[0]).read_text()) | {"threshold": 0.001}
        (trial.folder / self._calibrations[1]).write_text(yaml.safe_dump(other))

    def begin(self) -> None:
        """Start the line."""
        self._trial.start(
            {"top": self._kinds[0]()},
            max_batch=self._chance.choice([1, 4, 8]),
            lanes=self._chance.choice([1, 2]),
            engine_timeout_s=1,
        )

    def go_on(self) -> None:
        """Have events happen, until there were enough of them or the line has ended."""
        events = [self._reload] * 5 + [self._select] * 2 + [self._hit_a_camera] * 2
        events += [self._hold_up, self._kill]
        for _ in range(EVENTS):
            if self._trial.process.poll() is not None:
                break
            event = self._chance.choice(events)
            self.happened.append(event.__name__)
            event()
            if pause_ms := self._chance.choice([0, 20, 200, 800]):
                self._listen(pause_ms / 1000)

    def end(self) -> None:
        """Have the line end, if it has not yet."""
        self._trial.send(self._chance.choice([signal.SIGTERM, signal.SIGINT]))
        self._trial.wait_until(lambda: self._trial.process.poll() is not None)
        given_up = "given up" in self._trial.log
        assert self._trial.process.returncode == (1 if given_up else 0), self._trial.log[-2000:]
        self._trial.note_end()

    def _listen(self, seconds: float) -> None:
        waited = threading.Event()
        timer = threading.Timer(seconds, waited.set)
        timer.start()
        self._trial.wait_until(waited.is_set)

    def _belt(self, trouble: str, **settings: object) -> Camera:
        frame = self._chance.randrange(5, 200)
        source = f"simulated://?width=64&height=64&cached=4&trouble={trouble}@{frame}"
        return {"source": source, "fps": 100, **settings}

    def _reload(self) -> None:
        chance, now = self._chance, self._trial.content
        kept = {name: camera for name, camera in now["cameras"].items() if chance.random() < 0.4}
        new = {name: chance.choice(self._kinds)() for name in chance.sample(CAMERAS, chance.randrange(1, 3))}
        content = now | {"cameras": new | kept, "deadline_ms": chance.choice([20, 200, 2000, 20_000])}
        for key in ("engine", "calibration", "products", "archive"):
            content.pop(key, None)
        engine = "gone.engine" if chance.random() < 0.1 else "brightness.engine"
        a, b = ({"engine": engine, "calibration": calibration} for calibration in self._calibrations)
        content |= a if chance.random() < 0.3 else {"products": {"a": a, "b": b}}
        if chance.random() < 0.3:
            content["archive"] = {"folder": str(self._trial.folder / chance.choice("xy"))}
        self._trial.content = content
        self._trial.reconfigure()
        self._trial.send(signal.SIGHUP)

    def _select(self) -> None:
        # It may know no such product, or have ended.
        with suppress(ControlRefused, ControlSilent), LineControl(self._trial.content["control"]) as control:
            control.select(self._chance.choice("ab"))

    def _hit_a_camera(self) -> None:
        if processes := camera_processes(self._trial.process):
            blow = self._chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT, signal.SIGTERM])
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(processes), blow)

    def _hold_up(self) -> None:
        self._trial.send(signal.SIGSTOP)
        self._listen(self._chance.uniform(0.05, 0.6))
        self._trial.send(signal.SIGCONT)

    def _kill(self) -> None:
        self._trial.killed()
        products = self._trial.content.get("products", {"": self._trial.content})
        for product in products.values():
            product["engine"] = "brightness.engine"  # a start with what is gone would be refused
        self._trial.reconfigure()
        heard = len(self._trial.messages)
        self._trial.launch()
        up = health("up", lambda health: health.state in {"running", "degraded"})
        self._trial.wait_until(lambda: any(up.shows(message) for _, message in self._trial.messages[heard:]))


@contextmanager
def gate(address: str) -> Iterator[list[Verdict]]:
    """Have verdicts delivered until they are acknowledged, over all starts of the daemon."""
    received: list[Verdict] = []
    done = threading.Event()

    def receive() -> None:
        with acknowledged(address, line="line3", name="gate", silence_s=0.5) as verdicts:
            while not done.is_set():
                with suppress(LineSilent):
                    received.append(next(verdicts))

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        yield received
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_a_life_at_random(line_folder: Path, seed: int) -> None:
    trial = Trial(line_folder, Row("", ""))
    life = Life(trial, seed)
    try:
        life.begin()
        with gate(trial.content["control"]) as received:
            life.go_on()
            life.end()
        trial.finish(possible=[(camera, reason) for camera in CAMERAS for reason in REASONS])
        with JournalReader(trial.journal) as reader:
            written = [decode_verdict(payload) for _, payload in reader.after(0, 10_000_000)]
        first = written.index(received[0]) if received else 0  # a gate begins where it is first heard of
        assert received == written[first : first + len(received)], "others, or twice, or in another order"
    except AssertionError as error:
        error.add_note(f"seed {seed}: {', '.join(life.happened)}")
        raise
    finally:
        trial.close()
