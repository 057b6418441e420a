from typing import Final

import cv2
import numpy as np

from daemon.capture.drivers.simulated.line import SimulatedLine
from daemon.capture.drivers.simulated.moving_belt import MovingBelt
from daemon.capture.drivers.simulated.part import DEFECTS, Part
from pictures.frames import Frame, Size, fit

_TILE: Final = 208  # pixels
_CAPTION: Final = 18
_GOOD: Final = (0, 60, 120)  # far apart, so that the sheet shows how the light drifts
_MOMENTS: Final = ("empty", "0 whole, 1 in part", "1 whole", "1 whole, 1 in part", "2 whole", "3 whole")
_FRAME: Final = (150, 150, 150)
_STEP: Final = 4  # grey levels; without the sensor's noise the file is a third of the size


def sheet(seed: int = 0) -> Frame:
    """Draw an overview: three good parts, then one part of each kind of defect with its place encircled.

    Args:
        seed: of the line.

    Returns:
        H×W×3 uint8 BGR; below each part the text that its verdict carries.
    """
    good, bad = SimulatedLine(seed=seed), SimulatedLine(seed=seed, defects=1)
    tiles = [_tile(*good.frame(index)) for index in _GOOD]
    found: dict[str | None, Frame] = {}
    index = 0
    while len(found) < len(DEFECTS):
        frame, part = bad.frame(index)
        if part.defect not in found:
            found[part.defect] = _tile(frame, part)
        index += 1
    tiles += [found[defect] for defect in DEFECTS]
    return np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])


def moments(seed: int = 0) -> Frame:
    """Draw a moving belt at six moments: what a free-running camera sees, whether parts pass or not.

    Args:
        seed: of the belt.

    Returns:
        H×W×3 uint8 BGR; below each picture its number and what it shows.
    """
    belt = MovingBelt(seed=seed, stops=0)
    tiles: list[Frame] = []
    shown: set[str] = set()
    while len(tiles) < len(_MOMENTS) and belt.advance():
        seen = belt.in_view()
        whole = sum(part.whole for part in seen)
        kind = f"{whole} whole" + (f", {len(seen) - whole} in part" if len(seen) > whole else "")
        kind = kind if seen else "empty"
        if kind in _MOMENTS and kind not in shown:
            shown.add(kind)
            frame = belt.draw() // _STEP * _STEP + _STEP // 2
            captioned = _captioned(frame.astype(np.uint8), f"picture {belt.traffic.frame}: {kind}")
            # A frame, so that half a part is not taken for one behind its neighbour.
            framed = cv2.copyMakeBorder(captioned, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=_FRAME)
            tiles.append(framed.astype(np.uint8))
    return np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])


def _tile(frame: Frame, part: Part) -> Frame:
    scale = _TILE / frame.shape[0]
    small = fit(frame, Size(_TILE, round(frame.shape[1] * scale)))
    small = (small // _STEP * _STEP + _STEP // 2).astype(np.uint8)
    if part.place is not None:
        x, y = (round(at * scale) for at in part.place)
        cv2.circle(small, (x, y), _TILE // 8, (60, 170, 250), 1, cv2.LINE_AA)
    return _captioned(small, str(part))


def _captioned(picture: Frame, text: str) -> Frame:
    caption = np.full((_CAPTION, picture.shape[1], 3), 24, dtype=np.uint8)
    cv2.putText(
        caption, text, (6, _CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (225, 225, 225), 1, cv2.LINE_AA
    )
    return np.vstack([picture, caption])
