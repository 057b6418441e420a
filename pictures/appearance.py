"""How a picture looks, in numbers that tell a lamp, a lens and a position apart.

All but the brightness are relative to it, so that a weaker lamp changes the brightness and nothing else.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Frame

BRIGHTNESS, CONTRAST, SHARPNESS, NOISE, BLUE, RED, RIGHT, DOWN = range(8)
"""Indices of the statistics: logarithms of the mean grey level, of its deviation, of the mean Laplacian and
of the mean of a mask that sees noise alone, the latter three over the mean; of blue and red over green; and
where the part lies, in pixels of what the engine sees, against the mean picture."""
STATISTICS: Final = ("brightness", "contrast", "sharpness", "noise", "blue", "red", "right", "down")
CELLS: Final = 32
"""Along each side of a picture: of each cell the mean level is taken, over that of the whole picture."""
SPOTS: Final = 48
"""Along each side, likewise: of each spot the mean level over that of its surroundings, as a logarithm. A
speck on the lens changes it, and what a part is like there does not change it much."""
REGISTERED: Final = 96
"""Pixels along each side of the mean picture."""

_NOISE_MASK: Final = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
"""Immerkær, "Fast noise variance estimation", 1996: blind to edges."""
_BLUR: Final = 2.0
"""Standard deviation, in pixels of the mean picture, over which shifts are seen as proportional."""
_LEAST: Final = 1e-3
_AROUND: Final = (5, 5)
"""Spots that are a spot's surroundings, itself among them."""
_DARK: Final = 0.05
"""Of the mean level, added to a spot and its surroundings: in the dark a ratio is mostly noise."""

Plane = NDArray[np.float32]


class Appearance:
    """Measures pictures of one size. Memory is allocated once; belongs to one thread."""

    def __init__(self, mean_picture: Plane | None = None) -> None:
        """Begin.

        Args:
            mean_picture: of the good parts, ``REGISTERED`` × ``REGISTERED`` grey levels, against which the
                place of a part is measured; None: it is not.
        """
        self._register = None if mean_picture is None else _register(mean_picture)
        self._fitted = np.empty(4)
        self._grey: NDArray[np.uint8] | None = None
        self._reduced = np.empty((REGISTERED, REGISTERED), np.uint8)
        self._small = np.empty((REGISTERED, REGISTERED))
        self._cells = np.empty((CELLS, CELLS), np.uint8)
        self._spots = np.empty((SPOTS, SPOTS), np.uint8)
        self._levels, self._around = np.empty((2, SPOTS, SPOTS), np.float32)

    def small(self, picture: Frame) -> Plane:
        """Give a picture's grey levels, ``REGISTERED`` × ``REGISTERED``, as they are registered."""
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        reduced = cv2.resize(grey, (REGISTERED, REGISTERED), interpolation=cv2.INTER_AREA)
        return reduced.astype(np.float32)

    def measure(
        self,
        picture: Frame,
        out: NDArray[np.float32],
        cells: NDArray[np.float32],
        spots: NDArray[np.float32],
    ) -> None:
        """Measure a picture.

        Args:
            picture: H×W×3 uint8, BGR.
            out: where the statistics go, float32.
            cells: where the cells go, row by row, float32.
            spots: where the spots go, likewise.
        """
        height, width = picture.shape[:2]
        if self._grey is None or self._grey.shape != (height, width):
            self._grey = np.empty((height, width), np.uint8)
            self._edges = np.empty((height, width), np.float32)
        grey, edges = self._grey, self._edges
        cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY, dst=grey)
        blue, green, red, _ = cv2.mean(picture)
        mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
        mean = max(mean, _LEAST)
        cv2.Laplacian(grey, cv2.CV_32F, dst=edges, ksize=1)
        sharpness = cv2.norm(edges, cv2.NORM_L1) / edges.size
        cv2.filter2D(grey, cv2.CV_32F, _NOISE_MASK, dst=edges)
        noise = cv2.norm(edges, cv2.NORM_L1) / edges.size
        out[BRIGHTNESS] = np.log(mean)
        out[CONTRAST] = np.log(max(deviation / mean, _LEAST))
        out[SHARPNESS] = np.log(max(sharpness / mean, _LEAST))
        out[NOISE] = np.log(max(noise / mean, _LEAST))
        out[BLUE] = np.log((blue + 1) / (green + 1))
        out[RED] = np.log((red + 1) / (green + 1))
        out[RIGHT], out[DOWN] = self._place(grey)
        cv2.resize(grey, (CELLS, CELLS), dst=self._cells, interpolation=cv2.INTER_AREA)
        np.divide(self._cells.reshape(-1), np.float32(mean), out=cells, casting="unsafe")
        cv2.resize(grey, (SPOTS, SPOTS), dst=self._spots, interpolation=cv2.INTER_AREA)
        np.add(self._spots, np.float32(_DARK * mean), out=self._levels)
        cv2.blur(self._levels, _AROUND, dst=self._around, borderType=cv2.BORDER_REFLECT)
        np.divide(self._levels, self._around, out=self._levels)
        np.log(self._levels.reshape(-1), out=spots)

    def _place(self, grey: NDArray[np.uint8]) -> tuple[float, float]:
        """Give by how much a picture is shifted against the mean picture, right and down, in its pixels."""
        if self._register is None:
            return 0.0, 0.0
        cv2.resize(grey, (REGISTERED, REGISTERED), dst=self._reduced, interpolation=cv2.INTER_AREA)
        cv2.GaussianBlur(self._reduced, (0, 0), _BLUR, dst=self._reduced)
        np.copyto(self._small, self._reduced)
        np.dot(self._register, self._small.reshape(-1), out=self._fitted)
        gain = max(float(self._fitted[2]), _LEAST)
        height, width = grey.shape
        right, down = self._fitted[:2] / gain
        return float(right) * width / REGISTERED, float(down) * height / REGISTERED


def _register(mean_picture: Plane) -> NDArray[np.float64]:
    """Give the 4×n matrix that fits a picture by shift, gain and offset of the mean picture.

    It is one step of least squares over the gradients (Lucas and Kanade, 1981): small shifts need no more.
    """
    mean = cv2.GaussianBlur(mean_picture.astype(np.float64), (0, 0), _BLUR)
    down, right = np.gradient(mean)
    model = np.stack([-right.ravel(), -down.ravel(), mean.ravel(), np.ones(mean.size)], axis=1)
    return np.linalg.pinv(model)
