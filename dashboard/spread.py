"""How a number is spread: counts in bins that grow by a factor, so small and large are told alike."""

import json
import math
from typing import Final, Self

_PER_DOUBLING: Final = 16
"""Bins: a quantile is right to within 2.2 %."""
_LEAST: Final = 1e-6


class Spread:
    """Counts by bin. Numbers of either sign; those closer to 0 than a millionth are one bin."""

    def __init__(self) -> None:
        self.bins: dict[int, int] = {}

    def add(self, number: float) -> None:
        """Count a number."""
        place = _bin(number)
        self.bins[place] = self.bins.get(place, 0) + 1

    def merge(self, other: "Spread") -> None:
        """Add what another one counted."""
        for place, number in other.bins.items():
            self.bins[place] = self.bins.get(place, 0) + number

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.bins.values())

    def quantile(self, share: float) -> float | None:
        """Give the number below which a share of all lies; None without any."""
        left = share * self.total
        place = None
        for place in sorted(self.bins):
            left -= self.bins[place]
            if left <= 0:
                break
        return None if place is None else _middle(place)

    def __str__(self) -> str:
        return json.dumps(sorted(self.bins.items()), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote."""
        spread = cls()
        spread.bins = dict(json.loads(text))
        return spread


def _bin(number: float) -> int:
    if abs(number) < _LEAST:
        return 0
    place = 1 + math.floor(_PER_DOUBLING * math.log2(abs(number) / _LEAST))
    return place if number > 0 else -place


def _middle(place: int) -> float:
    if place == 0:
        return 0.0
    size = _LEAST * 2 ** ((abs(place) - 0.5) / _PER_DOUBLING)
    return size if place > 0 else -size
