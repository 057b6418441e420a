"""Whether drift is told, under its right name and soon, and whether nothing is told while nothing drifts.

Pictures of the simulated line, and of real products, are changed as a lamp, a lens, a bracket, dirt and
another lot change them. They are shown to the monitor as the daemon shows them: fitted, judged by an
engine, measured.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from calibration.calibrate import calibrate
from calibration.drift import DriftMonitor
from calibration.drift_baseline import VALUES, DriftBaseline, Values, values_of
from daemon.capture.drivers.simulated import SimulatedLine
from engine_build.cli import main as build_engine
from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine, Quantiles
from engine_runtime.open import open_engine
from models.commands import train_model
from pictures.appearance import Appearance
from pictures.frames import Frame, fit
from pictures.image_file import read_image

BASELINE = 300
"""Parts that the calibration has seen: more than the slowest drift of the simulated light needs."""
WITHIN = 500
"""Parts within which a change must be told."""
HOUR = 1200
"""Parts in an hour: one in three seconds."""
LAMP_STEPS = 30
"""In which a lamp that fades loses its 15 %: half a percent each, which no single part shows."""
MEASURED = 500
"""Unchanged parts of each seed that are judged and measured; those that are shown are drawn from these."""
BLOCK = 250
"""Successive parts that are drawn together, so that they depend on each other as they came."""
RUNS = 20
"""Of each change of a real product."""

Change = Callable[[Frame, float, np.random.Generator], Frame]
"""Changes a picture by a share of the whole change, 0 to 1."""


def lamp(picture: Frame, share: float, _: np.random.Generator) -> Frame:
    """A lamp with 15 % less light."""
    return np.asarray(np.clip(picture * (1 - 0.15 * share), 0, 255).round(), np.uint8)


def focus(picture: Frame, _: float, __: np.random.Generator) -> Frame:
    """A lens out of focus: σ = 1.5 pixels of the camera."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8)


def position(picture: Frame, _: float, __: np.random.Generator) -> Frame:
    """A bracket that was bumped: 6 pixels of the camera."""
    moved = np.array([[1, 0, 6], [0, 1, 0]], np.float64)
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, moved, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def dirt(picture: Frame, _: float, random: np.random.Generator) -> Frame:
    """A speck on the window: 2 % of the picture's side in radius, half as bright, at a place of the seed."""
    height, width = picture.shape[:2]
    x, y = random.uniform(0.3, 0.7, 2)
    mask = np.zeros((height, width), np.float32)
    cv2.circle(mask, (int(x * width), int(y * height)), max(2, round(0.02 * min(height, width))), 1.0, -1)
    shade = 1 - 0.5 * cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
    return np.asarray((picture * shade).round(), np.uint8)


def lot(picture: Frame, _: float, random: np.random.Generator) -> Frame:
    """Another lot: a rougher surface, of ±6 grey levels, in the middle of the picture, new on each part."""
    height, width = picture.shape[:2]
    random = np.random.default_rng(random.integers(2**32) + int(picture[::7, ::7].sum()))
    grain = cv2.GaussianBlur(random.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.0)
    y, x = np.mgrid[0:height, 0:width]
    part = np.hypot(x / width - 0.5, y / height - 0.5) < 0.38
    rough = (6 * grain / grain.std() * part)[..., None]
    return np.asarray(np.clip(picture + rough, 0, 255).round(), np.uint8)


CHANGES: dict[str, tuple[Change, int, str]] = {
    "lamp −15 % at once": (lamp, 0, "lamp"),
    f"lamp −15 % over an hour ({HOUR:,} parts)": (lamp, HOUR, "lamp"),
    "focus: blur σ 1.5": (focus, 0, "focus"),
    "position: shift 6 px": (position, 0, "position"),
    "dirt: a speck": (dirt, 0, "dirt"),
    "another lot: rougher surface": (lot, 0, "parts"),
}
"""By name: the change, over how many parts it comes, and what it is to be called."""


@dataclass
class Told:
    """What was told of one change on one run."""

    change: str
    seed: int
    cause: str | None
    after: int | None
    """Parts from the beginning of the change; of one that comes slowly, from its end if it was told later."""
    since: int | None
    """By how many parts the alarm's ``since`` lies after the beginning."""
    amount: str | None


class Judge:
    """Gives the values of a picture, as the daemon does."""

    def __init__(self, engine: Engine, quantiles: Quantiles, baseline: DriftBaseline) -> None:
        self.engine, self.quantiles = engine, quantiles
        self.appearance = Appearance(baseline.picture())

    def values(self, picture: Frame) -> Values:
        """Fit, judge and measure a picture of the camera."""
        frame = fit(picture, self.engine.manifest.input_size)
        judged = self.engine.infer([frame], self.quantiles, (SCORE, ANOMALY_MAP))
        values = np.empty(VALUES, np.float32)
        values_of(self.appearance, frame, float(judged[SCORE][0]), judged[ANOMALY_MAP][0], values)
        return values


Save = Callable[[str, dict[str, Any]], object]
Measure = Callable[[int, float], Values]
"""Gives the values of part number n, of which a share of the whole change has come."""


def run(baseline: DriftBaseline, measure: Measure, name: str, seed: int) -> Told:
    """Show changed parts until something is told, or for ``WITHIN`` parts after the change is whole."""
    comes_over = CHANGES[name][1]
    monitor = DriftMonitor(baseline)
    for number in range(comes_over + WITHIN):
        share = min(1.0, (number + 1) / comes_over) if comes_over else 1.0
        stepped = round(share * LAMP_STEPS) / LAMP_STEPS
        if monitor.observe(number, measure(number, stepped)) and monitor.alarm is not None:
            alarm = monitor.alarm
            after = number - comes_over if number >= comes_over else number
            return Told(name, seed, alarm.cause, after, alarm.since, alarm.amount)
    return Told(name, seed, None, None, None, None)


def unchanged(baseline: DriftBaseline, rows: Values, parts: int, random: np.random.Generator) -> list[str]:
    """Show unchanged parts, drawn in blocks; give the alarms, of which there should be none."""
    monitor, block = DriftMonitor(baseline), min(BLOCK, len(rows))
    told = []
    for number in tqdm(range(parts), desc="unchanged parts", unit="part", leave=False, disable=None):
        if number % block == 0:
            first = int(random.integers(len(rows) - block + 1))
        if monitor.observe(number, rows[first + number % block]) and monitor.alarm is not None:
            told.append(f"{monitor.alarm.cause}: {monitor.alarm.amount}")
    return told


def simulated(seed: int, first: int, side: int = 512) -> Iterator[Frame]:
    """Give the good parts of the simulated line from one on, so many pixels along each side."""
    line = SimulatedLine(seed=seed, width=side, height=side)
    index = first
    while True:
        yield line.frame(index)[0]
        index += 1


class Drawn:
    """Measures changed pictures that are drawn by chance, with replacement; of equal ones one is measured."""

    def __init__(self, judge: Judge, pictures: Sequence[Frame]) -> None:
        self._judge, self._pictures = judge, pictures
        self._measured = cache(self._measure)

    def _measure(self, index: int, name: str, share: float, seed: int) -> Values:
        return self._judge.values(CHANGES[name][0](self._pictures[index], share, np.random.default_rng(seed)))

    def of(self, seed: int, name: str) -> Measure:
        """Draw by a seed; the lamp, the lens and the bracket change a picture alike for all seeds."""
        random, own = np.random.default_rng(seed), seed if CHANGES[name][0] in {dirt, lot} else 0
        return lambda _, share: self._measured(int(random.integers(len(self._pictures))), name, share, own)


def write(folder: Path, pictures: Iterator[Frame], count: int) -> Path:
    """Write pictures as files, in their order."""
    folder.mkdir(parents=True)
    for index, picture in zip(range(count), pictures, strict=False):
        cv2.imwrite(str(folder / f"{index:06d}.bmp"), picture)  # packing takes longer than drawing
    return folder


def engine_of(folder: Path, images: Path, side: int = 256) -> Path:
    """Train PaDiM on images and build its engine, for pictures of so many pixels along each side."""
    model = folder / "model.onnx"
    method = ["--method", "padim", "--seed", "0", "--image-size", str(side)]
    assert train_model(["--data", str(images), "--out", str(model), *method]) == 0
    assert build_engine([str(model), "--fast", "--runtime", "onnxruntime"]) == 0
    return model.with_suffix(".engine")


class Measured:
    """The values of one seed's parts, measured when asked for, and kept in a file for another run."""

    def __init__(
        self, file: Path | None, judge: Callable[[], tuple[Judge, DriftBaseline]], seed: int
    ) -> None:
        self._file, self._judge, self._seed = file, cache(judge), seed
        line = SimulatedLine(seed=seed)
        self._part = cache(lambda number: line.frame(BASELINE + number)[0])
        self._rows: dict[str, list[Values]] = {}
        kept = None if file is None or not file.exists() else np.load(file)
        if kept is None:
            self.baseline = self._judge()[1]
        else:
            self.baseline = DriftBaseline.model_validate_json(str(kept["baseline"]))
            self._rows = {name: list(kept[name]) for name in kept.files if name != "baseline"}

    def of(self, name: str) -> Measure:
        """Measure the parts that come after those of the baseline, changed; or unchanged ones."""
        rows = self._rows.setdefault(name, [])

        def measure(number: int, share: float) -> Values:
            if number == len(rows):
                picture = self._part(number)
                if name in CHANGES:
                    picture = CHANGES[name][0](picture, share, np.random.default_rng(self._seed))
                rows.append(self._judge()[0].values(picture))
            return rows[number]

        return measure

    def keep(self) -> None:
        """Write what was measured."""
        if self._file is not None:
            rows = {name: np.stack(some) for name, some in self._rows.items()}
            np.savez_compressed(self._file, baseline=self.baseline.model_dump_json(), **rows)


def of_the_simulated_line(
    engine: Callable[[], Path], seeds: Iterable[int], parts: int, save: Save, rows_in: Path | None
) -> None:
    """Run all of it on the simulated line, with a baseline of its own for each seed."""
    for seed in tqdm(seeds, desc="seeds", disable=None):
        file = None if rows_in is None else rows_in / f"{seed}.npz"
        measured = Measured(file, partial(_judge_of, engine, seed), seed)
        baseline = measured.baseline
        told = [run(baseline, measured.of(name), name, seed) for name in CHANGES]
        rows = np.stack([measured.of("unchanged")(number, 0.0) for number in range(MEASURED)])
        measured.keep()
        alarms = unchanged(baseline, rows, parts, np.random.default_rng(seed))
        result = {"told": [asdict(one) for one in told], "unchanged_parts": parts, "false_alarms": alarms}
        save(f"simulated line, seed {seed}", result)


def _judge_of(engine: Callable[[], Path], seed: int) -> tuple[Judge, DriftBaseline]:
    """Calibrate on the parts of a seed."""
    with tempfile.TemporaryDirectory() as held:
        good = write(Path(held) / "good", simulated(seed, 0), BASELINE)
        calibration = calibrate(engine(), good, None, 0.01).calibration
    assert calibration.drift is not None
    judge = Judge(open_engine(engine(), threads=1), calibration.quantiles_array(), calibration.drift)
    return judge, calibration.drift


def of_a_product(work: Path, product: Path, parts: int) -> dict[str, Any]:
    """Run all of it on the good images of a product: a quarter trains, half calibrate, a quarter is shown."""
    files = sorted(path for path in (product / "train" / "good").iterdir() if path.is_file())
    trains, calibrates, shows = files[::4], files[1::2], files[2::4]
    for name, chosen in (("train", trains), ("good", calibrates)):
        (work / name).mkdir(parents=True)
        for file in chosen:
            (work / name / file.name).symlink_to(file.resolve())
    engine_file = engine_of(work, work / "train")
    measured = calibrate(engine_file, work / "good", None, 0.01)
    baseline = measured.calibration.drift
    assert baseline is not None
    judge = Judge(open_engine(engine_file, threads=1), measured.calibration.quantiles_array(), baseline)
    pictures = [read_image(file) for file in shows]
    drawn = Drawn(judge, pictures)
    told = [
        run(baseline, drawn.of(seed, name), name, seed)
        for seed in tqdm(range(RUNS), desc=product.name, disable=None)
        for name in CHANGES
    ]
    rows = np.stack([judge.values(picture) for picture in pictures])
    order = np.random.default_rng(0).integers(len(rows), size=2 * BLOCK)
    return {
        "told": [asdict(one) for one in told],
        "calibrated_on": len(calibrates),
        "shown": len(pictures),
        "unchanged_parts": parts,
        "false_alarms": unchanged(baseline, rows[order], parts, np.random.default_rng(0)),
    }


def table(results: dict[str, Any]) -> str:
    """Lay the results out in Markdown; seeds of the simulated line are taken together."""
    rows = ["| pictures | change | right name | after, parts: median, most | since, off by: median |"]
    rows.append("|---|---|---|---|---|")
    for name in dict.fromkeys(key.partition(",")[0] for key in results):
        found = [result for key, result in results.items() if key.partition(",")[0] == name]
        told = [Told(**one) for result in found for one in result["told"]]
        for change, (_, _, cause) in CHANGES.items():
            own = [one for one in told if one.change == change]
            right = [one for one in own if one.cause == cause]
            others = sorted({str(one.cause) for one in own if one.cause != cause})
            wrong = f" (else: {', '.join(others)})" if others else ""
            after = [one.after for one in right if one.after is not None] or [0]
            since = [one.since for one in right if one.since is not None] or [0]
            shown = f"{np.median(after):.0f}, {max(after)} | {np.median(since):.0f}"
            rows.append(f"| {name} | {change} | {len(right)} of {len(own)}{wrong} | {shown} |")
        alarms = sum(len(result["false_alarms"]) for result in found)
        parts = sum(result["unchanged_parts"] for result in found)
        rows.append(f"| {name} | none | {alarms} alarms in {parts:,} parts | | |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 120), metavar=("FIRST", "END"))
    parser.add_argument("--parts", type=int, default=100_000, help="unchanged ones (default: %(default)s)")
    parser.add_argument(
        "--rows", type=Path, metavar="DIR", help="where what was measured of the seeds is kept"
    )
    parser.add_argument("--engine", type=Path, help="of the simulated line; trained when not given")
    parser.add_argument("--products", type=Path, nargs="*", default=[], metavar="DIR", help="with train/good")
    parser.add_argument("--add", type=Path, nargs="*", default=[], metavar="JSON", help="of other runs")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/drift.json"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.rows is not None:
        options.rows.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for other in options.add:
        results |= json.loads(other.read_text())

    def save(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        work, seeds = Path(folder), range(*options.seeds)

        @cache
        def engine() -> Path:
            return options.engine or engine_of(work, write(work / "train", simulated(1000, 0), BASELINE))

        of_the_simulated_line(engine, seeds, options.parts // 20, save, options.rows)
        for product in options.products:
            save(product.name, of_a_product(work / product.name, product, options.parts))
    print(table(results))


if __name__ == "__main__":
    main()
