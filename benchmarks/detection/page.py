"""The table of accuracy as a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_METRICS = {
    "image_auroc": "Image AUROC",
    "au_pro": "AU-PRO, false positive rate up to 0.3",
    "pixel_auroc": "Pixel AUROC",
    "caught_at_1_percent": "Share of defects caught when 1 % of the good test images are rejected",
}


def as_markdown(content: dict[str, Any]) -> str:
    """Lay out what ``accuracy.py`` measured, as far as it is finished."""
    cells: Sequence[dict[str, Any]] = content["cells"]
    methods = list(dict.fromkeys(cell["settings"]["method"] for cell in cells))
    data = sorted({cell["settings"]["data"] for cell in cells})
    logical = {cell["settings"]["data"] for cell in cells if "logical_anomalies" in cell.get("by_defect", {})}
    lines = [
        f"# Accuracy after {content['steps']} steps",
        "",
        f"256×256 pixels; networks that are trained take {content['steps']} steps of one image;"
        " where there are several seeds, the mean"
        " ± the sample's standard deviation; a seed also chooses the images that are held back, so compare"
        " rows of the same seeds. All methods learn from the same good images, hold"
        " the same ones back, and are measured by the same code on the same test images."
        + (
            f" The mean is without {', '.join(sorted(logical))}, whose defects are logical."
            if logical
            else ""
        )
        + " Written by",
        "",
        *(f"    {command}" for command in dict.fromkeys(cell["command"] for cell in cells)),
    ]
    for key, title in _METRICS.items():
        lines += [
            "",
            f"## {title}",
            "",
            f"| | {' | '.join(data)} | mean |",
            f"|---|{' --: |' * (len(data) + 1)}",
        ]
        for method in methods:
            found = {
                name: [
                    cell.get(key)  # rows of older versions lack some
                    for cell in cells
                    if cell["settings"]["method"] == method and cell["settings"]["data"] == name
                ]
                for name in data
            }
            counted = [found[name] for name in data if name not in logical]
            whole = key == "image_auroc" and all(values and None not in values for values in counted)
            mean = f"{np.mean([np.mean(values) for values in counted]):.3f}" if counted and whole else ""
            lines.append(f"| {method} | {' | '.join(_cell(values) for values in found.values())} | {mean} |")
    lines += [
        "",
        "## What ran where",
        "",
        "| | seeds | device | learning in one go, s |",
        "|---|---|---|--:|",
    ]
    for method in methods:
        own = [cell for cell in cells if cell["settings"]["method"] == method]
        seeds = ", ".join(str(seed) for seed in sorted({cell["settings"]["seed"] for cell in own}))
        devices = "; ".join(dict.fromkeys(cell["device"] for cell in own))
        took = [cell["learned_in_s"] for cell in own if cell["learned_in_s"] is not None]
        learning = f"{np.median(took):.0f}" if took else "not measured"
        lines.append(f"| {method} | {seeds} | {devices} | {learning} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"
