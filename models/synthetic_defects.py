"""Defects painted on good pictures, to compare models where no real defect may be looked at.

From plain to hardly visible, so that the comparison does not end with every model at 1. They are no
substitute for real ones: what they rank is how well a model knows the good parts.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pictures.frames import Frame

FAINTEST, PLAINEST = 8.0, 96.0
"""Grey levels by which a defect differs from what it covers."""


def with_defect(picture: Frame, random: np.random.Generator) -> Frame:
    """Give a copy of a good picture with one defect: a blotch, a scratch, or a patch from another place.

    Args:
        picture: H×W×3 uint8.
        random: decides on everything.
    """
    while True:
        kind: Callable[[Frame, np.random.Generator], Frame] = (blotch, scratch, transplant)[
            random.integers(3)
        ]
        changed = kind(picture, random)
        if int(cv2.absdiff(changed, picture).max()) >= FAINTEST / 2:  # not white moved to white
            return changed


def blotch(picture: Frame, random: np.random.Generator) -> Frame:
    """Stain a round, ragged spot."""
    height, width = picture.shape[:2]
    radius = random.uniform(0.02, 0.08) * min(height, width)
    row, column = _place(picture, radius, random)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    noise = cv2.resize(random.uniform(0.5, 1.5, (8, 8)).astype(np.float32), (width, height))
    distance = np.hypot(rows - row, columns - column) * noise
    return _painted(picture, np.clip(1.5 - distance / radius, 0, 1).astype(np.float32), random)


def scratch(picture: Frame, random: np.random.Generator) -> Frame:
    """Draw a thin bent line."""
    shorter = min(picture.shape[:2])
    row, column = _place(picture, 0.1 * shorter, random)
    angle, bend = random.uniform(0, 2 * np.pi), random.normal(0, 0.15, 12).cumsum()
    step = random.uniform(0.05, 0.3) * shorter / 12
    start = np.array([column, row])
    path = step * np.stack([np.cos(angle + bend), np.sin(angle + bend)], axis=1).cumsum(axis=0)
    points = np.round(start + path).astype(np.int32)
    mask = np.zeros(picture.shape[:2], dtype=np.float32)
    thickness = max(1, round(random.uniform(0.004, 0.012) * shorter))
    cv2.polylines(mask, [points[:, None]], isClosed=False, color=(1.0,), thickness=thickness)
    return _painted(picture, cv2.GaussianBlur(mask, (0, 0), 0.7).astype(np.float32), random)


def transplant(picture: Frame, random: np.random.Generator) -> Frame:
    """Cover a place with what another place shows, turned by 180 degrees."""
    height, width = picture.shape[:2]
    tall, wide = (max(2, int(random.uniform(0.05, 0.15) * side)) for side in (height, width))
    (top, left), (row, column) = (
        (int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))) for _ in range(2)
    )
    patch = picture[top : top + tall, left : left + wide][::-1, ::-1]
    changed = picture.astype(np.float32)
    covered = changed[row : row + tall, column : column + wide]
    covered += np.float32(random.uniform(0.3, 1)) * (patch - covered)
    return _rounded(changed)


def _place(picture: Frame, margin: float, random: np.random.Generator) -> tuple[float, float]:
    height, width = picture.shape[:2]
    return random.uniform(margin, height - margin), random.uniform(margin, width - margin)


def _painted(
    picture: Frame, mask: np.ndarray[tuple[int, int], np.dtype[np.float32]], random: np.random.Generator
) -> Frame:
    """Shift the colours where a mask H×W from 0 to 1 says so, away from the limit that is nearer."""
    shift = np.exp(random.uniform(np.log(FAINTEST), np.log(PLAINEST)))
    mean = float((picture.mean(axis=2) * mask).sum() / max(float(mask.sum()), 1e-6))
    colour = np.array(shift * (1 if mean < 128 else -1) * random.uniform(0.5, 1, 3), dtype=np.float32)
    return _rounded(picture + mask[..., None] * colour)


def _rounded(picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Frame:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
