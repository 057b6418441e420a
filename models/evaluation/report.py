"""An evaluation as JSON for programs and as Markdown for people."""

import os
from importlib.metadata import version
from typing import Any

from models.evaluation.evaluate import Area, Evaluation, Metrics
from models.evaluation.judge import Judge
from models.evaluation.operating_point import OperatingPoint, Share
from models.metrics.bootstrap import CONFIDENCE, Estimate

FORMAT_VERSION = 1
_NAMED = 20


def as_json(
    evaluation: Evaluation, point: OperatingPoint, judge: Judge, data: str, root: str
) -> dict[str, Any]:
    """Lay an evaluation out in plain types.

    Args:
        evaluation: what was measured.
        point: what the threshold makes of it.
        judge: the model.
        data: name of the data set.
        root: folder against which images are named.
    """
    judged = evaluation.judged
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": version("inspectd"),
        "model": judge.name,
        "data": data,
        "frame": list(judge.geometry.frame),
        "roi": list(judged.roi) if judged.roi else None,
        "tiles": str(judged.tiles) if judged.tiles else None,
        "confidence": CONFIDENCE,
        "good_images": sum(sample.defect is None for sample in judged.samples),
        "overlap": "sPRO" if evaluation.saturated else "PRO",
        "notes": notes(evaluation, point),
        "overall": _metrics(evaluation.overall),
        "by_defect": {name: _metrics(metrics) for name, metrics in evaluation.by_defect.items()},
        "operating_point": {
            "threshold": point.threshold,
            "calibrated": point.calibrated,
            "false_rejects": _share(point.false_rejects),
            "caught": _share(point.caught),
            "caught_by_defect": {name: _share(share) for name, share in point.caught_by_defect.items()},
        },
        "images": [
            {"image": os.path.relpath(sample.image, root), "defect": sample.defect, "score": float(score)}
            for sample, score in zip(judged.samples, judged.scores, strict=True)
        ],
    }


def as_markdown(evaluation: Evaluation, point: OperatingPoint, judge: Judge, data: str, root: str) -> str:
    """Lay an evaluation out as a page, see ``as_json`` for the arguments."""
    judged = evaluation.judged
    good = sum(sample.defect is None for sample in judged.samples)
    overlap = "AU-sPRO" if evaluation.saturated else "AU-PRO"
    limits = list(evaluation.overall.overlap)
    heads = ["", "images", "image AUROC", "F1 best"]
    if evaluation.overall.pixel_auroc is not None:
        heads += ["pixel AUROC", *(f"{overlap} {limit:g}" for limit in limits)]
    groups = {"all": evaluation.overall, **evaluation.by_defect}
    lines = [
        f"# {judge.name} on {data}",
        "",
        f"{good} good and {evaluation.overall.images} defective images; intervals hold with {CONFIDENCE:.0%} "
        "(bootstrap within each type).",
        "",
        _row(heads),
        _row(["---"] * len(heads)),
    ]
    for name, metrics in groups.items():
        cells = [name, f"{metrics.images}", shown(metrics.image_auroc), shown(metrics.f1_best)]
        if evaluation.overall.pixel_auroc is not None:
            areas = [metrics.pixel_auroc, *(metrics.overlap.get(limit) for limit in limits)]
            cells += [shown(area.estimate) if area else "–" for area in areas]
        lines.append(_row(cells))
    origin = "of the calibration" if point.calibrated else "with the best F1 on these very images"
    lines += [
        "",
        f"## At the threshold {point.threshold:.4g}, {origin}",
        "",
        _row(["", "images", "rejected", "share"]),
        _row(["---"] * 4),
    ]
    shares = {
        "good (false rejects)": point.false_rejects,
        "defective": point.caught,
        **point.caught_by_defect,
    }
    for name, share in shares.items():
        low, high = share.interval
        ratio = f"{share.hits / share.count:.1%} ({low:.1%} to {high:.1%})"
        lines.append(_row([name, f"{share.count}", f"{share.hits}", ratio]))
    for title, indices in (("Missed", point.missed), ("Falsely rejected", point.falsely_rejected)):
        if indices:
            lines += ["", f"{title}:", ""]
            for index in indices[:_NAMED]:
                name = os.path.relpath(judged.samples[index].image, root)
                lines.append(f"- {name}, score {judged.scores[index]:.4g}")
            if len(indices) > _NAMED:
                lines.append(f"- and {len(indices) - _NAMED} more")
    said = notes(evaluation, point)
    if said:
        lines += ["", *(f"Note: {note}." for note in said)]
    return "\n".join(lines) + "\n"


def notes(evaluation: Evaluation, point: OperatingPoint) -> list[str]:
    """Say what makes the figures mean less than they seem to."""
    said = []
    if evaluation.overall.pixel_auroc is None:
        said.append("the defective images have no masks, so there are no pixel metrics")
    elif evaluation.unmasked:
        of = evaluation.overall.images
        said.append(
            f"{evaluation.unmasked} of {of} defective images have no mask, or an empty one; "
            "pixel metrics leave them out"
        )
    if not point.calibrated:
        said.append("the threshold was chosen on the test images themselves, which flatters it")
    if evaluation.trained_on is not None:
        said.append(
            f"the model was trained on {evaluation.trained_on}, which the good test images are part of: it "
            "scores parts it never saw higher, so all figures flatter it"
        )
    return said


def shown(estimate: Estimate) -> str:
    """Give a metric with its interval, in three digits."""
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.interval
    return f"{estimate.value:.3f} ({low:.3f}–{high:.3f})"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _metrics(metrics: Metrics) -> dict[str, Any]:
    return {
        "images": metrics.images,
        "image_auroc": _estimate(metrics.image_auroc),
        "f1_best": _estimate(metrics.f1_best) | {"threshold": metrics.f1_threshold},
        "pixel_auroc": _area(metrics.pixel_auroc),
        "overlap": {f"{limit:g}": _area(area) for limit, area in metrics.overlap.items()},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval": list(estimate.interval) if estimate.interval else None}


def _area(area: Area | None) -> dict[str, Any] | None:
    return None if area is None else _estimate(area.estimate) | {"largest_error": area.error}


def _share(share: Share) -> dict[str, Any]:
    return {"hits": share.hits, "count": share.count, "interval": list(share.interval)}
