"""The page that calibrate writes: what the threshold rests on, for who has to answer for it."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np

from calibration.calibrate import Measured
from calibration.charts import Chart
from calibration.detection import share_interval
from calibration.evidence import Evidence, changes
from calibration.report import next_step, rate_text, warnings
from calibration.tail import CONFIDENCE

_BARS: Final = 40
_SHOWN: Final = 40
_LEAST_RATE: Final = 1e-6


def page(target: Path, engine: Path, measured: Measured, found: Evidence) -> str:
    """Give the page as HTML, with all that it shows inside.

    Args:
        target: the calibration's file.
        engine: the engine's.
        measured: what was measured.
        found: what follows from it.
    """
    calibration = measured.calibration
    title = f"Calibration of {calibration.model}"
    sections = [
        _tiles(measured),
        "".join(f'<p class="warning">{escape(line)}</p>' for line in warnings(measured)),
        _scores(measured),
        _tail(measured, found),
        _choices(measured, found),
        _pictures(measured),
        _more(measured, found),
        _stability(found),
        _overlap(measured),
        _compared(measured),
        _defects(measured),
        _facts(target, engine, measured),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(calibration.made_at)} · engine {calibration.engine_sha256[:12]} · '
        f"inspectd {escape(calibration.tool_version)}</p>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _style() -> str:
    return files("calibration").joinpath("page.css").read_text(encoding="utf-8")


def _tiles(measured: Measured) -> str:
    threshold, defects = measured.threshold, measured.defective_scores
    caught = int(np.count_nonzero(defects > threshold.value))
    low, high = threshold.rate_interval
    parts = len(measured.part_scores)
    above = int(np.count_nonzero(measured.part_scores > threshold.value))
    shown = [
        ("threshold", f"{threshold.value:.4g}", "a part with a higher score is rejected"),
        (
            "false rejects",
            rate_text(threshold.wanted_rate),
            f"expected; {CONFIDENCE:.0%} interval {rate_text(low, high)}",
        ),
        ("good parts", f"{parts}", f"in {len(measured.good_scores)} images; {above} above the threshold"),
    ]
    if defects.size:
        least, most = share_interval(caught, len(defects))
        shown.append(
            ("defects caught", f"{caught} of {len(defects)}", f"95 % interval {least:.0%} to {most:.0%}")
        )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span class="soft">{escape(name)}</span><b>{escape(value)}</b>'
            f'<span class="soft">{escape(said)}</span></div>'
            for name, value, said in shown
        )
        + "</div>"
    )


def _scores(measured: Measured) -> str:
    good, defects, threshold = measured.good_scores, measured.defective_scores, measured.threshold.value
    low, high = float(np.concatenate([good, defects]).min()), max(float(good.max()), threshold)
    end = high + 0.6 * (high - low)
    edges = np.linspace(low, end, _BARS + 1)
    counts, _ = np.histogram(good, edges)
    bad, _ = np.histogram(np.minimum(defects, end), edges)
    chart = Chart(
        "Histogram of the scores",
        (low, end),
        (0, 1.08 * float(max(counts.max(), bad[:-1].max(), 1))),  # those beyond the end may be many
        "score",
        "images",
    )
    chart.bars(edges.tolist(), counts.tolist(), "good", f"{len(good)} good images")
    beyond = int(np.count_nonzero(defects > end))
    if defects.size:
        name = f"{len(defects)} defective images" + (
            f", {beyond} of them beyond the right end" if beyond else ""
        )
        chart.bars(edges.tolist(), bad.tolist(), "bad", name)
    chart.upright(threshold, "chosen", f"threshold {threshold:.4g}")
    return _section(
        "Scores",
        "Left of the threshold parts pass, right of it they are rejected.",
        chart.svg(),
    )


def _tail(measured: Measured, found: Evidence) -> str:
    if not found.curve:
        return ""
    scores, threshold = np.sort(measured.part_scores), measured.threshold
    start, end = found.curve[0][0], found.curve[-1][0]
    tail = scores[scores >= start]
    seen = [(float(score), (len(tail) - rank) / len(scores)) for rank, score in enumerate(tail)]
    least = max(_LEAST_RATE, min(rate for _, rate, _, _ in found.curve))
    chart = Chart(
        "Share of good parts above each score: seen, and fitted",
        (start, end),
        (10 ** np.floor(np.log10(least)), max(0.5, seen[0][1]) if seen else 0.5),
        "score",
        "share of good parts above it",
        log_y=True,
        percent_y=True,
    )
    band = [(at, high) for at, _, _, high in found.curve], [(at, low) for at, _, low, _ in found.curve]
    chart.band(*band, "range", f"{CONFIDENCE:.0%} interval of the fit")
    chart.line([(at, rate) for at, rate, _, _ in found.curve], "good", "fit: expected share")
    chart.dots(seen, "good", "parts in the images")
    chart.level(threshold.wanted_rate, "before", f"wanted: {rate_text(threshold.wanted_rate)}")
    chart.upright(threshold.value, "chosen", "threshold")
    return _section(
        "The tail",
        "What is wanted lies beyond what so many parts show, so the tail of their scores is extrapolated: a "
        f"generalised Pareto distribution, fitted on the {threshold.tail_size} highest. The dots should lie "
        "in the "
        "band; the wider the band at the threshold, the less is known there." + _where_it_ends(measured),
        chart.svg(),
    )


def _where_it_ends(measured: Measured) -> str:
    """Say how parts are missing from the tail that a line rejected."""
    known = measured.truncation
    if known is None:
        return ""
    return (
        f" These parts were collected from the line, which rejects what scores above {known.at:.4g}, so good "
        "parts above it are missing here. The fit takes the tail for cut off there. Of "
        f"{known.passes + known.most} parts that were judged meanwhile {known.most} were rejected: no more "
        "good ones can be missing."
    )


def _choices(measured: Measured, found: Evidence) -> str:
    points, threshold = found.choices, measured.threshold
    if len(points) < 2:
        return ""
    least = max(_LEAST_RATE, min(rate for _, rate, _ in points))
    chart = Chart(
        "What each threshold would do",
        (points[0][0], points[-1][0]),
        (10 ** np.floor(np.log10(least)), 1.0),
        "threshold",
        "share of parts",
        log_y=True,
        percent_y=True,
    )
    chart.line([(at, rate) for at, rate, _ in points], "good", "good parts rejected, expected")
    caught = [(at, share) for at, _, share in points if share is not None]
    if caught:
        chart.line([(at, max(1 - share, _LEAST_RATE)) for at, share in caught], "bad", "defects missed")
    chart.upright(threshold.value, "chosen", "chosen")
    said = "A higher threshold rejects fewer good parts and misses more defects."
    if not caught:
        said += " What is missed is not known: give --defects DIR."
    rows = [
        (
            f"{at:.4g}",
            rate_text(rate),
            "not measured" if share is None else f"{share:.1%}",
        )
        for at, rate, share in _some(points, threshold.value)
    ]
    table = _table(("threshold", "good parts rejected", "defects caught"), rows, numbers=True)
    return _section("Threshold against false rejects and caught defects", said, chart.svg() + table)


def _some(
    points: list[tuple[float, float, float | None]], chosen: float
) -> list[tuple[float, float, float | None]]:
    """Choose a few points, with the one nearest to the chosen threshold."""
    nearest = min(range(len(points)), key=lambda index: abs(points[index][0] - chosen))
    step = max(1, len(points) // 6)
    return [points[index] for index in sorted({*range(nearest % step, len(points), step), nearest})]


def _pictures(measured: Measured) -> str:
    shown = "".join(
        f'<div><img src="{picture.frame}" alt="as the engine saw it">'
        f'<img src="{picture.heat}" alt="heat map">'
        f"<br><b>{picture.score:.4g}</b> {escape(measured.good.files[picture.place].name)}</div>"
        for picture in measured.highest
    )
    return _section(
        "The good images with the highest scores",
        "One defect among the good images raises the threshold for all: look at these. The tint is full at "
        "twice the "
        "threshold; a white contour encloses what lies above it.",
        f'<div class="pictures">{shown}</div>',
    )


def _more(measured: Measured, found: Evidence) -> str:
    rows = [
        (
            "these" if more.images == 0 else f"{more.images} more",
            f"{more.threshold:.4g}",
            rate_text(*more.interval),
        )
        for more in found.more
    ]
    now, then = found.more[0], found.more[1]
    said = (
        f"With {then.images} more images of good parts like these, the upper end of the interval would come "
        "down "
        f"from {rate_text(now.interval[1])} to about {rate_text(then.interval[1])}, and the threshold would "
        f"{'stay' if _same(now.threshold, then.threshold) else f'move to about {then.threshold:.4g}'}."
    )
    table = _table(
        ("good images", "threshold", f"false rejects, {CONFIDENCE:.0%} interval"), rows, numbers=True
    )
    return _section(f"What {then.images} more images would bring", said, table)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= 0.005 * abs(one)


def _stability(found: Evidence) -> str:
    stability = found.stability
    if stability is None:
        return _section(
            "Stability",
            "Not measured: there are too few different parts to make a threshold from each half.",
            "",
        )
    thresholds = [half.threshold for half in stability.random]
    ordered = (
        "The first and the second half of the images, in the order of their names, do not look alike: "
        "something changed between them"
        if stability.same < 0.01
        else "The first and the second half of the images, in the order of their names, look alike"
    )
    rows = [
        (name, f"{half.threshold:.4g}", f"{half.others_above} of {half.others}")
        for name, half in (("first half", stability.first), ("second half", stability.second))
    ]
    rows.append(
        (
            f"{len(thresholds)} random halves",
            f"{min(thresholds):.4g} to {max(thresholds):.4g}",
            f"{sum(half.others_above for half in stability.random)} of "
            f"{sum(half.others for half in stability.random)}",
        )
    )
    table = _table(("made from", "threshold", "parts of the other half above it"), rows, numbers=True)
    return _section("Stability", f"{ordered} (p = {stability.same:.2g}).", table)


def _overlap(measured: Measured) -> str:
    total, trained = len(measured.good.files), measured.trained_on
    if not trained:
        said = f"None of the {total} good images is known to be one that the model was trained on."
        return _section("Overlap with the training", said, "")
    said = (
        f"The model was trained on {len(trained)} of these {total} images and scores parts it never saw "
        "higher, so "
        "the threshold is too low. Use held-out images."
    )
    return _section(
        "Overlap with the training", said, _names(measured.good.files[index] for index in trained)
    )


def _names(files: Iterable[Path]) -> str:
    named = [file.name for file in files]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f'<p class="soft">{escape(", ".join(named[:_SHOWN]) + more)}</p>'


def _compared(measured: Measured) -> str:
    compared = measured.compared
    if compared is None:
        return ""
    old, new = compared.old, measured.calibration
    rows = [
        ("threshold", f"{old.threshold:.4g}", f"{new.threshold:.4g}"),
        (
            f"interval of false rejects, {CONFIDENCE:.0%}",
            rate_text(*old.false_reject_rate_interval),
            rate_text(*new.false_reject_rate_interval),
        ),
        *(
            (
                f"quantiles of the {name} map",
                "; ".join(f"{q:.4g}" for q in old.quantiles.get(name, ())) or "–",
                "; ".join(f"{q:.4g}" for q in row),
            )
            for name, row in new.quantiles.items()
        ),
        ("good images", f"{old.good_images}", f"{new.good_images}"),
        ("made at", old.made_at, new.made_at),
    ]
    table = _table(("", compared.file.name, "this one"), rows)
    if compared.good_scores is None:
        said = "The earlier calibration is of another engine, so no image can be judged by it again."
        return _section("What would change", said, table)
    changed = changes(measured)
    if not changed:
        return _section("What would change", "Every image here is decided as before.", table)
    listed = [
        (entry["file"], entry["is"], f"{entry['score']:.4g}", f"{entry['now']} now")
        for entry in changed[:_SHOWN]
    ]
    said = f"{len(changed)} of the images here are decided otherwise than before."
    return _section("What would change", said, table + _table(("image", "is", "score", ""), listed))


def _listed(values: Iterable[float]) -> str:
    return "; ".join(f"{value:.4g}" for value in values) or "–"


def _defects(measured: Measured) -> str:
    if measured.defective is None:
        return ""
    scores = measured.defective_scores
    order = [int(index) for index in np.argsort(scores)[:_SHOWN]]
    rows = [
        (
            measured.defective.files[index].name,
            f"{scores[index]:.4g}",
            "caught" if scores[index] > measured.threshold.value else "missed",
        )
        for index in order
    ]
    more = len(scores) - len(order)
    said = "The lowest scores first." + (f" {more} with higher scores are left out." if more > 0 else "")
    return _section("Defective images", said, _table(("image", "score", ""), rows))


def _facts(target: Path, engine: Path, measured: Measured) -> str:
    calibration, from_line = measured.calibration, measured.from_line
    tolerance = calibration.score_tolerance
    rows = [
        ("calibration", str(target)),
        ("engine", f"{engine} (payload {calibration.engine_sha256})"),
        ("good images", f"{measured.good.folder}, digest {calibration.good_images_sha256}"),
        ("wanted false rejects", rate_text(calibration.wanted_false_reject_rate)),
        ("region of interest", f"{calibration.roi}" if calibration.roi else "whole picture"),
        ("reference of the place", calibration.locate or "none: parts are judged where they lie"),
        ("mask", calibration.mask or "none: all is looked at"),
        ("tiles", f"{calibration.tiles}" if calibration.tiles else "none"),
        *(
            (f"q_a, q_b of the {name} map", f"{a:.6g}, {b:.6g}")
            for name, (a, b) in calibration.quantiles.items()
        ),
        (
            "golden samples",
            "a score may move by 2 % of itself" + (f", or by {tolerance:.3g}" if tolerance else ""),
        ),
        ("drift", "how these parts look is kept" if calibration.drift else "too few images to tell it"),
    ]
    if from_line is not None:
        found = from_line.collected
        rows.append(("from the line", f"while it passed {found.passes} and rejected {found.rejects} parts"))
    steps = "".join(f"<p>{escape(line)}</p>" for line in next_step(engine, target, measured).splitlines())
    return _section("Facts", "", _table(("", ""), rows)) + _section("What to do next", "", steps)


def _section(title: str, said: str, content: str) -> str:
    paragraph = f"<p>{escape(said)}</p>" if said else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{content}</section>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, numbers: bool = False) -> str:
    kind = ' class="number"' if numbers else ""

    def row(cells: tuple[str, ...], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{kind if index else ''}>{escape(cell)}</{tag}>" for index, cell in enumerate(cells)
            )
            + "</tr>"
        )

    top = row(head, "th") if any(head) else ""
    return f'<div class="table"><table>{top}{"".join(row(cells, "td") for cells in rows)}</table></div>'
