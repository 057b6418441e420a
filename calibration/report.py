"""What calibrate tells a quality engineer."""

from pathlib import Path

import numpy as np

from calibration.calibrate import Measured
from calibration.calibration_file import Calibration
from calibration.detection import Floats, auroc, share_interval
from calibration.tail import CONFIDENCE, FEWEST_SCORES, TOLERATED_FACTOR, scores_needed
from pictures.tiles import TileGrid

_SHOWN = 3


def report(target: Path, measured: Measured) -> str:
    """Lay out the calibration, and the defects where there were any."""
    calibration, threshold = measured.calibration, measured.threshold
    scores = measured.good_scores
    low, high = threshold.rate_interval
    parts = max(measured.groups) + 1
    copies = f" ({measured.good.copies} copies left out)" if measured.good.copies else ""
    if parts < len(scores):
        copies += f", effectively {parts}: near-copies, such as consecutive frames of one part, count as one"
    rows = [
        ("calibration", f"{target}"),
        ("engine", f"{calibration.model} {calibration.engine_sha256[:12]}"),
        ("region of interest", f"{calibration.roi}" if calibration.roi else "whole picture"),
        *([("locate", f"reference {calibration.locate[:12]}…")] if calibration.locate else []),
        *([("mask", f"{calibration.mask[:12]}…")] if calibration.mask else []),
        *_tile_rows(calibration),
        ("good images", f"{len(scores)}{copies}"),
        *_line_rows(measured),
        (
            "quantiles q_a, q_b",
            "; ".join(
                f"{name} map {q_a:.4g}, {q_b:.4g}" for name, (q_a, q_b) in calibration.quantiles.items()
            ),
        ),
        ("good scores", f"median {np.median(scores):.4g}, highest {_highest(measured.good.files, scores)}"),
        ("threshold", f"{threshold.value:.4g}, to reject {rate_text(threshold.wanted_rate)} good parts"),
        (
            f"{CONFIDENCE:.0%} confidence",
            f"{rate_text(low, high)} (tail fitted on the {threshold.tail_size} highest scores)",
        ),
    ]
    if measured.defective is not None:
        rows += _defect_rows(measured.defective.files, measured)
    return "\n".join(f"{name:<20}{value}" for name, value in rows)


def warnings(measured: Measured) -> list[str]:
    """Say, in one line each, what makes the threshold less than it seems."""
    lines = []
    calibration, threshold = measured.calibration, measured.threshold
    parts, needed = max(measured.groups) + 1, scores_needed(threshold.wanted_rate)
    worst = f"up to {rate_text(threshold.rate_interval[1])} good parts may be rejected"
    if parts < FEWEST_SCORES:
        lines.append(
            f"the {len(measured.groups)} good images show only {parts} different parts, the others are "
            f"near-copies; a threshold needs {FEWEST_SCORES} at least, so do not trust this one: take images "
            "of other parts"
        )
    elif parts < needed and not threshold.enough_scores:
        lines.append(
            f"{parts} good images are few: {worst}; about {needed} in all, {needed - parts} more, would "
            f"narrow that to {rate_text(TOLERATED_FACTOR * threshold.wanted_rate)}"
        )
    elif not threshold.enough_scores:
        lines.append(
            f"the highest good scores lie far apart: {worst}; look at the images of the highest scores, or "
            "train longer"
        )
    tiles = calibration.tiles
    if tiles is not None and tiles.overlap < measured.least_overlap:
        lines.append(
            f"tiles overlap by {tiles.overlap} pixels, and this model's maps leave gaps between them: a "
            f"small defect there may be missed; an overlap of {measured.least_overlap} closes them"
        )
    if measured.trained_on:
        count, total = len(measured.trained_on), len(measured.good.files)
        which = "all" if count == total else f"{count}"
        named = ", ".join(measured.good.files[index].name for index in measured.trained_on[:_SHOWN])
        lines.append(
            f"{measured.good.folder}: the model was trained on {which} of these {total} images ({named}"
            f"{', ...' if count > _SHOWN else ''}) and scores parts it never saw higher, so the threshold is "
            "too low: use held-out ones"
        )
    if measured.not_located:
        lines.append(
            f"no part was found in {measured.not_located} of the {len(measured.defective_scores)} defective "
            "images; they were judged as they lie, while the line makes them faults or rejects"
        )
    for index in measured.suspects:
        file, score = measured.good.files[index], measured.good_scores[index]
        lines.append(
            f"{file}: scores {score:.4g}, far above the other good images, and raises the threshold; "
            "if it shows a defect, take it out and calibrate again"
        )
    if measured.threshold_without is not None:
        count = len(measured.suspects)
        lines.append(
            f"without {'this image' if count == 1 else f'these {count} images'} the threshold would be about "
            f"{measured.threshold_without:.4g} instead of {threshold.value:.4g}"
        )
    return lines


def comparison(measured: Measured) -> list[str]:
    """Say what would change where another calibration was in use."""
    compared = measured.compared
    if compared is None:
        return []
    old, new = compared.old.threshold, measured.threshold.value
    lines = [f"compared with {compared.file}: threshold {old:.4g}, now {new:.4g}"]
    if compared.good_scores is None:
        return [*lines, "it is of another engine, so no image can be judged by it again"]
    sets = [("good", measured.good, compared.good_scores, measured.good_scores)]
    if measured.defective is not None and compared.defective_scores is not None:
        sets.append(("defective", measured.defective, compared.defective_scores, measured.defective_scores))
    for kind, images, before, now in sets:
        newly, no_longer = compared.changed(before, now, new)
        for said, indices in (("would be rejected now", newly), ("would pass now", no_longer)):
            if indices:
                named = ", ".join(images.files[index].name for index in indices[:_SHOWN])
                more = ", ..." if len(indices) > _SHOWN else ""
                lines.append(f"{len(indices)} {kind} images that {said}: {named}{more}")
    return lines if len(lines) > 1 else [*lines, "every image here is decided as before"]


def next_step(engine: Path, target: Path, measured: Measured) -> str:
    """End in plain words: what was found, whether it will do, and what to do next."""
    lines = []
    if measured.defective is not None:
        count = len(measured.defective.files)
        missed = count - int(np.count_nonzero(measured.defective_scores > measured.threshold.value))
        lines.append(
            f"it misses {missed} of {count} defective parts: train longer, or with more images of good parts"
            if missed
            else f"it catches all {count} defective parts"
        )
    else:
        lines.append("how many defects it catches is not known: give --defects DIR, with images of them")
    if measured.from_line is not None and measured.compared is not None:
        lines.append(
            f"next: look at the evidence; then mv {target} {measured.compared.file}, and inspectctl reload"
        )
        return "\n".join(lines)
    lines.append(
        f"next: write engine: {engine} and calibration: {target} into the line's config, then inspectd"
        " --config FILE --check"
    )
    return "\n".join(lines)


def _line_rows(measured: Measured) -> list[tuple[str, str]]:
    if measured.from_line is None:
        return []
    found = measured.from_line.collected
    which = (
        "rejects are among them" if found.with_rejects else "a part above the line's threshold is not seen"
    )
    return [("from the line", f"while it passed {found.passes} and rejected {found.rejects} parts; {which}")]


def _tile_rows(calibration: Calibration) -> list[tuple[str, str]]:
    tiles, region = calibration.tiles, calibration.tiled_size
    if tiles is None or region is None:
        return []
    grid = TileGrid(tiles, region)
    return [("tiles", f"{len(grid)} of {tiles.size}×{tiles.size} pixels, overlapping by {tiles.overlap}")]


def _defect_rows(files: list[Path], measured: Measured) -> list[tuple[str, str]]:
    scores = measured.defective_scores
    caught = int(np.count_nonzero(scores > measured.threshold.value))
    low, high = share_interval(caught, len(scores))
    rows = [
        ("defective images", f"{len(scores)}, AUROC {auroc(measured.good_scores, scores):.4f}"),
        (
            "caught",
            f"{caught} of {len(scores)}, {caught / len(scores):.1%} (95 % interval {low:.1%} to {high:.1%})",
        ),
    ]
    missed = [int(index) for index in np.argsort(scores)[: len(scores) - caught]]
    if missed:
        shown = ", ".join(f"{scores[index]:.4g} {files[index].name}" for index in missed[:_SHOWN])
        rows.append(("missed", shown + (", ..." if len(missed) > _SHOWN else "")))
    return rows


def _highest(files: list[Path], scores: Floats) -> str:
    best = np.argsort(scores)[::-1][:_SHOWN]
    return ", ".join(f"{scores[index]:.4g} {files[index].name}" for index in best)


def rate_text(*rates: float) -> str:
    """Give one or two rates in plain words, such as "1 to 4 in 1000"."""
    # Two digits and no exponent; what would round to less than 1 in 10 million is shown as 0.
    shown = (float(f"{1000 * rate:.2g}") for rate in rates)
    return " to ".join(f"{count if count >= 1e-4 else 0:g}" for count in shown) + " in 1000"
