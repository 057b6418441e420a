"""The matrices of Winograd's minimal filtering, built exactly (Toom–Cook) and rounded once.

F(m, r) gives m neighbouring outputs of a filter of r taps from m + r - 1 products. Two polynomials are
multiplied by evaluating both at m + r - 1 points, one of them infinity, multiplying the values and
interpolating; filtering is the transposed problem: ``outputs @ ((weights @ g) * (inputs @ d))``.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

Matrix = list[list[Fraction]]

# By the number of finite points. Few and simple ones round least; the eight and the nine were searched for:
# with 0, ±1, ±2, ±½ and any eighth the error is five times larger. Nine round twice as coarsely as eight, a
# fifth of the proof's limit on S; they pay where their tiles leave no rest: 56 = 8 × 7 = 7 × 8. Four save too
# little to win anywhere.
_POINTS = {
    5: "0 1 -1 2 -2",
    6: "0 1 -1 2 -2 1/2",
    7: "0 1 -1 2 -2 1/2 -1/2",
    8: "1/3 -1/3 2/3 -2/3 4/3 -4/3 2 -2",
    9: "0 2/5 -2/5 4/5 -4/5 5/4 -5/4 5/2 -5/2",
}

KERNELS = (3, 4)


@dataclass(frozen=True)
class Transforms:
    """F(tile, kernel) in one dimension; two dimensions apply each along rows and columns. All float64."""

    inputs: NDArray[np.float64]
    """n×n, n = tile + kernel - 1: turns a window into its values at the points (Bᵀ in the literature)."""
    weights: NDArray[np.float64]
    """n×kernel (G)."""
    outputs: NDArray[np.float64]
    """tile×n (Aᵀ)."""


def tiles(kernel: int) -> tuple[int, ...]:
    """Give the tile sizes there are points for, largest first."""
    return tuple(sorted((points + 2 - kernel for points in _POINTS), reverse=True))


@cache
def transforms(tile: int, kernel: int) -> Transforms:
    """Build the matrices of F(tile, kernel)."""
    points = [Fraction(text) for text in _POINTS[tile + kernel - 2].split()]
    return Transforms(
        inputs=_float64(_inverse(_evaluation(points, tile + kernel - 1))).T,
        weights=_float64(_evaluation(points, kernel)),
        outputs=_float64(_evaluation(points, tile)).T,
    )


def _evaluation(points: list[Fraction], coefficients: int) -> Matrix:
    """Evaluate a polynomial at the points and, as its leading coefficient, at infinity."""
    finite = [[point**power for power in range(coefficients)] for point in points]
    return [*finite, [Fraction(power == coefficients - 1) for power in range(coefficients)]]


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss–Jordan; distinct points make the matrix regular."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for row in range(size):
            factor = rows[row][column]
            if row != column and factor:
                pairs = zip(rows[row], rows[column], strict=True)
                rows[row] = [value - factor * other for value, other in pairs]
    return [row[size:] for row in rows]


def _float64(matrix: Matrix) -> NDArray[np.float64]:
    return np.array([[float(value) for value in row] for row in matrix])
