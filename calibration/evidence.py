"""What a calibration rests on, in numbers: the content of its page, and of the JSON file beside it."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from calibration.calibrate import Measured
from calibration.detection import Floats, auroc, share_interval
from calibration.report import next_step, warnings
from calibration.tail import CONFIDENCE, FEWEST_SCORES, Truncation, fit_threshold, tail_curve, with_more

FORMAT_VERSION: Final = 1
_POINTS: Final = 28
_SPLITS: Final = 5
_MORE: Final = (100, 300)


@dataclass(frozen=True)
class More:
    """What more good images would bring, if they were spread as those that were seen."""

    images: int
    threshold: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Half:
    """The threshold of one half of the good parts, and how many of the other half lie above it."""

    threshold: float
    others_above: int
    others: int


@dataclass(frozen=True)
class Stability:
    """How much the threshold depends on which good parts it was made from.

    Attributes:
        random: of each half of some random splits.
        first: of the first half of the images, in the order of their names.
        second: of the second half.
        same: probability that two halves of one distribution differ as much as first and second do
            (Kolmogorov and Smirnov's test).
    """

    random: list[Half]
    first: Half
    second: Half
    same: float


@dataclass(frozen=True)
class Evidence:
    """All that the page shows beside pictures.

    Attributes:
        curve: of the tail: threshold, expected rate, and the two ends of its interval.
        choices: threshold, expected false reject rate, share of the defective images that it catches (None
            without such images).
        more: beginning with none more.
        stability: None when there are too few parts for two halves.
    """

    curve: list[tuple[float, float, float, float]]
    choices: list[tuple[float, float, float | None]]
    more: list[More]
    stability: Stability | None


def evidence(measured: Measured) -> Evidence:
    """Work out what a calibration rests on."""
    scores, threshold = measured.part_scores, measured.threshold
    rate = threshold.wanted_rate
    least = float(np.quantile(scores, 0.5))
    most = max(float(scores.max()), threshold.value) + 0.35 * (threshold.value - least)
    curve = tail_curve(scores, rate, np.linspace(least, most, _POINTS).tolist(), measured.truncation)
    return Evidence(curve, _choices(measured, curve), _more(measured), _stability(measured))


def _choices(
    measured: Measured, curve: list[tuple[float, float, float, float]]
) -> list[tuple[float, float, float | None]]:
    """Give what each threshold would do: below the tail by counting, in it by the fit."""
    scores, defects = measured.part_scores, measured.defective_scores
    start = curve[0][0] if curve else float("inf")
    below = [float(score) for score in np.quantile(scores, np.linspace(0.3, 1, 20)) if score < start]
    points = [(score, float(np.mean(scores > score))) for score in below]
    points += [(threshold, rate) for threshold, rate, _, _ in curve]
    return [(at, rate, float(np.mean(defects > at)) if defects.size else None) for at, rate in points]


def _more(measured: Measured) -> list[More]:
    scores, rate, found = measured.part_scores, measured.threshold.wanted_rate, []
    for images in (0, *_MORE):
        threshold = with_more(scores, rate, images, measured.truncation)
        found.append(More(images, threshold.value, threshold.rate_interval))
    return found


def _stability(measured: Measured) -> Stability | None:
    from scipy.stats import ks_2samp

    scores, half_of = (
        measured.part_scores,
        partial(_half, measured.threshold.wanted_rate, measured.truncation),
    )
    middle = len(scores) // 2
    if middle < FEWEST_SCORES:
        return None
    random = np.random.default_rng(0)
    halves: list[Half] = []
    try:
        for _ in range(_SPLITS):
            order = random.permutation(len(scores))
            one, other = scores[order[:middle]], scores[order[middle:]]
            halves += [half_of(one, other), half_of(other, one)]
        first, second = scores[:middle], scores[middle:]
        same = float(ks_2samp(first, second).pvalue)
        return Stability(halves, half_of(first, second), half_of(second, first), same)
    except ValueError:  # the upper scores of a half are all equal
        return None


def _half(rate: float, truncation: Truncation | None, scores: Floats, others: Floats) -> Half:
    threshold = fit_threshold(scores, rate, truncation).value
    return Half(threshold, int(np.count_nonzero(others > threshold)), len(others))


def as_json(measured: Measured, found: Evidence, engine: str, target: str) -> dict[str, Any]:
    """Give all of it as one JSON object; the keys are those of docs/calibration.md."""
    calibration, threshold = measured.calibration, measured.threshold
    defects = measured.defective_scores
    caught = int(np.count_nonzero(defects > threshold.value))
    return {
        "format_version": FORMAT_VERSION,
        "calibration": calibration.model_dump(mode="json"),
        "engine": engine,
        "from_line": None if measured.from_line is None else asdict(measured.from_line.collected),
        "confidence": CONFIDENCE,
        "good": [
            {"file": file.name, "score": float(score), "part": part}
            for file, score, part in zip(
                measured.good.files, measured.good_scores, measured.groups, strict=True
            )
        ],
        "defective": None
        if measured.defective is None
        else {
            "images": [
                {"file": file.name, "score": float(score), "caught": bool(score > threshold.value)}
                for file, score in zip(measured.defective.files, defects, strict=True)
            ],
            "caught": caught,
            "interval": share_interval(caught, len(defects)),
            "auroc": auroc(measured.good_scores, defects),
        },
        "tail": [dict(zip(("threshold", "rate", "low", "high"), row, strict=True)) for row in found.curve],
        "choices": [
            dict(zip(("threshold", "false_rejects", "caught"), row, strict=True)) for row in found.choices
        ],
        "highest": [
            {"file": measured.good.files[picture.place].name, "score": picture.score}
            for picture in measured.highest
        ],
        "more_images": [
            {"more": more.images, "threshold": more.threshold, "interval": more.interval}
            for more in found.more
        ],
        "stability": None
        if found.stability is None
        else {
            "random_halves": [half.__dict__ for half in found.stability.random],
            "first_half": found.stability.first.__dict__,
            "second_half": found.stability.second.__dict__,
            "same_distribution_p": found.stability.same,
        },
        "trained_on": [measured.good.files[index].name for index in measured.trained_on],
        "suspects": [measured.good.files[index].name for index in measured.suspects],
        "compared_with": _compared(measured),
        "warnings": warnings(measured),
        "next": next_step_of(engine, target, measured),
    }


def next_step_of(engine: str, target: str, measured: Measured) -> list[str]:
    """Give what the command says at its end, line by line."""
    from pathlib import Path

    return next_step(Path(engine), Path(target), measured).splitlines()


def _compared(measured: Measured) -> dict[str, Any] | None:
    compared = measured.compared
    if compared is None:
        return None
    return {
        "file": str(compared.file),
        "threshold": compared.old.threshold,
        "interval": compared.old.false_reject_rate_interval,
        "same_engine": compared.good_scores is not None,
        "changes": changes(measured),
    }


def changes(measured: Measured) -> list[dict[str, Any]]:
    """List the images that the earlier calibration decides otherwise; none where it is of another engine."""
    compared, found = measured.compared, []
    if compared is None:
        return []
    sets = [(measured.good, compared.good_scores, measured.good_scores, "good")]
    if measured.defective is not None:
        sets.append((measured.defective, compared.defective_scores, measured.defective_scores, "defective"))
    for images, before, now, kind in sets:
        if before is None:
            continue
        newly, no_longer = compared.changed(before, now, measured.threshold.value)
        for now_is, indices in (("reject", newly), ("pass", no_longer)):
            found += [
                {"file": images.files[index].name, "is": kind, "now": now_is, "score": float(now[index])}
                for index in indices
            ]
    return found
