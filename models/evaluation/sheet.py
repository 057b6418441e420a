"""One picture that shows a person what the figures of an evaluation mean."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.files import write_whole
from models.datasets.masks import regions, union
from models.evaluation.evaluate import Evaluation, Judged, picture_seen
from models.evaluation.operating_point import OperatingPoint
from pictures.frames import Frame, Size, fit
from pictures.heatmap import overlay

WIDTH = 1320
TILES = 6
"""In a row."""
_TILE = WIDTH // TILES
_PICTURE = _TILE - 12
_ROW = _TILE + 56
_PLOT = 260
_BARS = 60

# BGR
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)
_GOOD = (150, 160, 60)
_DEFECTIVE = (50, 90, 220)
_MASK = (80, 230, 80)


def write_sheet(path: Path, evaluation: Evaluation, point: OperatingPoint, title: str) -> None:
    """Draw the histogram of the scores and rows of pictures with their heat, and write them as PNG.

    Raises:
        InputError: the folder of ``path`` cannot be written, or an image vanished meanwhile.
    """
    judged = evaluation.judged
    order = [int(index) for index in np.argsort(judged.scores)]
    defective = judged.defective
    caught = [index for index in order if defective[index] and judged.scores[index] > point.threshold]
    passed = [index for index in order if not defective[index] and judged.scores[index] <= point.threshold]
    rows = {
        "best: defects of the highest scores": caught[::-1],
        "worst: defects caught most narrowly": caught,
        "closest: good parts passed most narrowly": passed[::-1],
        "missed: defects of the lowest scores": point.missed,
        "falsely rejected: good parts of the highest scores": point.falsely_rejected,
    }
    parts = [histogram(judged, point, title)]
    for name, indices in rows.items():
        parts.append(_row(judged, f"{name} ({len(indices)})", indices[:TILES], point.threshold))
    encoded = cv2.imencode(".png", np.concatenate(parts))[1]
    write_whole(path, encoded.tobytes())


def histogram(judged: Judged, point: OperatingPoint, title: str) -> Frame:
    """Draw how many good and defective images have which score, and the threshold between them."""
    plot = np.full((_PLOT, WIDTH, 3), _PAPER, dtype=np.uint8)
    left, right, top, bottom = 20, WIDTH - 20, 56, _PLOT - 30
    ends = (min(judged.scores.min(), point.threshold), max(judged.scores.max(), point.threshold))
    low, high = ends if ends[1] > ends[0] else (ends[0] - 0.5, ends[0] + 0.5)
    counts = [
        np.histogram(judged.scores[kind], bins=_BARS, range=(low, high))[0]
        for kind in (~judged.defective, judged.defective)
    ]
    tallest = max(1, int(max(count.max() for count in counts)))
    width = (right - left) / _BARS
    for side, (count, colour) in enumerate(zip(counts, (_GOOD, _DEFECTIVE), strict=True)):
        for bar in np.flatnonzero(count):
            x = left + width * (bar + side / 2)
            y = bottom - (bottom - top) * int(count[bar]) / tallest
            corners = (round(x), round(y)), (round(x + width / 2) - 1, bottom)
            cv2.rectangle(plot, *corners, colour, cv2.FILLED)
    cv2.line(plot, (left, bottom), (right, bottom), _INK, 1)
    x = round(left + (right - left) * (point.threshold - low) / (high - low))
    cv2.line(plot, (x, top - 6), (x, bottom), _INK, 1, cv2.LINE_AA)
    origin = "calibration" if point.calibrated else "best F1 on these images"
    _write(plot, title, (left, 24), 0.6)
    _write(plot, "good", (left, 46), 0.5, _GOOD)
    _write(plot, "defective", (left + 60, 46), 0.5, _DEFECTIVE)
    _write(plot, f"threshold {point.threshold:.4g} ({origin})", (left + 170, 46), 0.5)
    _write(plot, f"{low:.4g}", (left, _PLOT - 10), 0.45)
    _write(plot, f"{high:.4g}", (right - 60, _PLOT - 10), 0.45)
    _write(plot, f"most images in a bar: {tallest}", (right - 220, 46), 0.45)
    return plot


def _row(judged: Judged, title: str, indices: Sequence[int], threshold: float) -> Frame:
    row = np.full((_ROW if indices else 60, WIDTH, 3), _PAPER, dtype=np.uint8)
    cv2.line(row, (0, 0), (WIDTH, 0), (210, 210, 210), 1)
    _write(row, title, (20, 24), 0.55)
    if not indices:
        _write(row, "none", (20, 48), 0.5)
    for place, index in enumerate(indices):
        tile = _tile(judged, index, threshold)
        height, width = tile.shape[:2]
        x = place * _TILE + (_TILE - width) // 2
        row[34 : 34 + height, x : x + width] = tile
        sample = judged.samples[index]
        caption = f"{judged.scores[index]:.4g} {sample.defect or 'good'}/{sample.image.name}"
        _write(row, caption[:34], (place * _TILE + 6, _ROW - 8), 0.38)
    return row


def _tile(judged: Judged, index: int, threshold: float) -> Frame:
    """Show a picture with its heat, and what people marked in it outlined in green."""
    picture = picture_seen(judged, index)
    scale = _PICTURE / max(picture.shape[:2])
    size = Size(*(max(1, round(side * scale)) for side in picture.shape[:2]))
    tile = overlay(fit(picture, size), judged.heat(index, size), threshold)
    marked = _marked(judged, index)
    if marked is not None:
        levels = 255 * marked.astype(np.uint8)  # so that the average over a thin defect is not rounded to 0
        small = cv2.resize(levels, (size.width, size.height), interpolation=cv2.INTER_AREA)
        outlines, _ = cv2.findContours((small > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outlines, -1, _MASK, 1)
    return tile


def _marked(judged: Judged, index: int) -> NDArray[np.bool_] | None:
    found = regions(judged.samples[index], judged.sizes[index], judged.cut, None)
    return None if found is None else union(found, judged.seen(index))


def _write(
    picture: Frame, text: str, origin: tuple[int, int], scale: float, colour: tuple[int, int, int] = _INK
) -> None:
    plain = text.encode("ascii", "replace").decode()  # all that OpenCV's font has
    cv2.putText(picture, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
