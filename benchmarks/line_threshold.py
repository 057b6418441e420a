"""Whether the promised false reject rate holds again after a drift that a person accepted.

    python benchmarks/line_threshold.py --seeds 300 320

On the simulated line a model is trained and calibrated. Then something changes, for good. The parts that
come are judged by the old threshold, with one defect in a hundred; when the drift is told it is accepted, and
what passes from then on re-estimates the interval and the threshold. Both are held against the good parts
that come after. Where the line rejects too much for that, the next good parts calibrate, rejects too, as
``calibrate --camera --with-rejects`` does.

And the same with scores from distributions, whose true rates are known: the passes with and without regard to
what is missing of them.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from drift import Judge, engine_of, lamp, lot, simulated, write
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

from calibration.calibrate import calibrate
from calibration.calibration_file import Calibration
from calibration.drift import DriftMonitor
from calibration.drift_baseline import SCORE, Values
from calibration.reestimate import JudgedParts, reestimate
from calibration.tail import Threshold, fit_threshold
from daemon.capture.drivers.simulated import SimulatedLine
from engine_runtime.engine import Engine
from engine_runtime.open import open_engine
from foundation.errors import InputError
from pictures.frames import Frame

BASELINE = 300
WANTED = 0.02
JUDGED = 600
"""Parts that re-estimate after the drift was accepted: ten minutes with one in a second."""
AFTER = 600
"""Good parts that come then, against which both are held."""
CALIBRATING = 100
"""Good parts that calibrate where too many are rejected: by chance, as an archive samples them."""
ANSWER = 250
"""Parts from an alarm until somebody has looked and accepts it."""
SIDE, DRAWN = 128, 256
"""Pixels of the engine's input, and of the camera's picture: small, so that many parts can be judged."""
CHANGES: dict[str, Callable[[Frame, float, np.random.Generator], Frame]] = {
    "lamp −15 %": lamp,
    "lamp +8 %": lambda picture, _, __: np.asarray(np.clip(picture * 1.08, 0, 255).round(), np.uint8),
    "another lot": lot,
}
LAWS = {"normal": stats.norm(1, 0.2), "gamma": stats.gamma(2), "exponential": stats.expon()}

Floats = NDArray[np.float64]


def calibrated(engine_file: Path, seed: int) -> Calibration:
    """Calibrate on the first parts of a seed."""
    with tempfile.TemporaryDirectory() as held:
        good = write(Path(held) / "good", simulated(seed, 0, DRAWN), BASELINE)
        return calibrate(engine_file, good, None, WANTED).calibration


def after_a_change(engine: Engine, made: Calibration, seed: int, name: str) -> dict[str, Any]:
    """Change something for good, accept it, re-estimate, and hold it against what comes after."""
    assert made.drift is not None
    judge = Judge(engine, made.quantiles_array(), made.drift)
    line, defective = (
        SimulatedLine(seed=seed, width=DRAWN, height=DRAWN, defects=defects) for defects in (0.0, 1.0)
    )

    def values(number: int, *, bad: bool) -> Values:
        picture = (defective if bad else line).frame(BASELINE + number)[0]
        return judge.values(CHANGES[name](picture, 1.0, np.random.default_rng(seed)))

    monitor, number, random = DriftMonitor(made.drift), 0, np.random.default_rng(seed)
    while monitor.alarm is None and number < 500:
        monitor.observe(number, values(number, bad=False))
        number += 1
    cause = None if monitor.alarm is None else monitor.alarm.cause
    if cause is not None:
        for _ in range(ANSWER):
            monitor.observe(number, values(number, bad=False))
            number += 1
        monitor.accept()
    bad = random.random(JUDGED) < 0.01
    rows = [values(number + index, bad=bool(bad[index])) for index in range(JUDGED)]
    told_again = sum(monitor.observe(number + index, row) for index, row in enumerate(rows))
    scores = np.array([row[SCORE] for row in rows], np.float64)
    following = range(number + JUDGED, number + JUDGED + AFTER)
    after = np.array([values(index, bad=False)[SCORE] for index in following], np.float64)
    old = made.threshold
    result: dict[str, Any] = {
        "change": name,
        "seed": seed,
        "told": cause,
        "told_again": told_again,
        "rate_by_old": float(np.mean(after > old)),
    }
    judged = JudgedParts(scores[scores <= old], int((scores > old).sum()))
    try:
        found = reestimate(judged, old, WANTED)
    except InputError:
        return result | {
            "way": "good parts",
            **_held(fit_threshold(random.permutation(scores[~bad])[:CALIBRATING], WANTED), after),
        }
    low, high = found.interval
    present = {"estimate": found.rate, "interval": [low, high], "held_by_old": _agrees(low, high, after, old)}
    return result | {"way": "what passed", **present, **_held(found.threshold, after)}


def _held(threshold: Threshold, after: Floats) -> dict[str, Any]:
    low, high = threshold.rate_interval
    rate = float(np.mean(after > threshold.value))
    return {"threshold": threshold.value, "rate": rate, "held": _agrees(low, high, after, threshold.value)}


def _agrees(low: float, high: float, after: Floats, threshold: float) -> bool:
    """Say whether an interval of the rate agrees with so many parts above a threshold.

    The parts after show their rate with an error of their own, which is no fault of the interval: its 90 %
    bounds (Clopper and Pearson) must overlap it.
    """
    above, count = int((after > threshold).sum()), len(after)
    least = stats.beta.ppf(0.05, above, count - above + 1) if above else 0.0
    most = stats.beta.ppf(0.95, above + 1, count - above)
    return bool(low <= most and least <= high)


def of_a_law(name: str, true: float, defects: float, draws: int) -> dict[str, Any]:
    """Draw passes below a threshold whose true rate is known, and count how often the intervals hold."""
    law, random = LAWS[name], np.random.default_rng(2026)
    threshold, held, held_new, naive, rates = float(law.isf(true)), 0, 0, 0, []
    for _ in range(draws):
        scores = law.rvs(JUDGED, random_state=random)
        rejects = int((scores > threshold).sum() + random.poisson(defects * JUDGED))
        passes = scores[scores <= threshold]
        found = reestimate(JudgedParts(passes, rejects), threshold, WANTED)
        held += found.interval[0] <= true <= found.interval[1]
        for fitted in (found.threshold, fit_threshold(passes, WANTED)):
            rate = float(law.sf(fitted.value))
            fits = fitted.rate_interval[0] <= rate <= fitted.rate_interval[1]
            if fitted is found.threshold:
                held_new += fits
                rates.append(rate)
            else:
                naive += fits
    return {
        "scores": name,
        "true": true,
        "held": held / draws,
        "held_new": held_new / draws,
        "rate_new": float(np.mean(rates)),
        "held_naive": naive / draws,
    }


def table(results: list[dict[str, Any]], laws: list[dict[str, Any]]) -> str:
    """Lay the results out in Markdown."""
    lines = [
        "| change | seeds | told as | told again, once accepted | rejected by the old threshold | way | "
        "interval of the old threshold holds | that of the new one holds | rejected by the new one, mean |",
        "|---|--:|---|--:|--:|---|--:|--:|--:|",
    ]
    for name in dict.fromkeys(result["change"] for result in results):
        for way in ("what passed", "good parts"):
            own = [result for result in results if (result["change"], result["way"]) == (name, way)]
            if not own:
                continue
            told = ", ".join(sorted({str(result["told"]) for result in own}))
            by_old = [result["held_by_old"] for result in own if "held_by_old" in result]
            lines.append(
                f"| {name} | {len(own)} | {told} | {sum(result['told_again'] for result in own)} | "
                f"{np.mean([result['rate_by_old'] for result in own]):.2%} | {way} | "
                f"{f'{sum(by_old)} of {len(by_old)}' if by_old else '–'} | "
                f"{sum(result['held'] for result in own)} of {len(own)} | "
                f"{np.mean([result['rate'] for result in own]):.2%} |"
            )
    lines += [
        "",
        "| scores | true rate of the old threshold | its interval holds it | that of the new one holds | "
        "rejected by the new one, mean | holds without regard to what is missing |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {law['scores']} | {law['true']:.1%} | {law['held']:.0%} | {law['held_new']:.0%} | "
        f"{law['rate_new']:.2%} | {law['held_naive']:.0%} |"
        for law in laws
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs=2, default=(300, 320), metavar=("FIRST", "END"))
    parser.add_argument(
        "--draws", type=int, default=100, help="from each distribution (default: %(default)s)"
    )
    parser.add_argument("--engine", type=Path, help="of the simulated line; trained when not given")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/line_threshold.json"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results: list[dict[str, Any]] = []
    laws = [
        of_a_law(name, true, 0.01, options.draws)
        for name in tqdm(LAWS, desc="distributions", disable=None)
        for true in (0.002, 0.01, 0.05)
        if options.draws
    ]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        engine = options.engine or engine_of(
            work, write(work / "train", simulated(1000, 0, DRAWN), BASELINE), SIDE
        )
        opened = open_engine(engine, threads=1)
        for seed in tqdm(range(*options.seeds), desc="seeds", disable=None):
            made = calibrated(engine, seed)
            for name in CHANGES:
                results.append(after_a_change(opened, made, seed, name))
                content = {"line": results, "distributions": laws}
                options.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(table(results, laws))


if __name__ == "__main__":
    main()
