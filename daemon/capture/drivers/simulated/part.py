import re
from typing import NamedTuple

DEFECTS = ("scratch", "dent", "stain", "missing-hole", "misplaced-hole", "wrong-engraving")
"""The kinds of defect, as they stand in a part's text."""

LOGICAL_DEFECTS = ("extra-hole", "hole-elsewhere", "swapped-labels", "turned")
"""Those whose every spot looks as on a good part; only the whole is wrong."""

KINDS = {"local": DEFECTS, "logical": LOGICAL_DEFECTS, "all": DEFECTS + LOGICAL_DEFECTS}
"""Which of them a line may make."""

_TEXT = re.compile(rf"([0-9]{{6,}}) (?:good|({'|'.join(KINDS['all'])})@([0-9]+),([0-9]+))")


class Part(NamedTuple):
    """The truth about one simulated part.

    Attributes:
        index: the part's number on the line, from 0.
        defect: one of `DEFECTS` or `LOGICAL_DEFECTS`; None on a good part.
        place: centre (x, y) of the defect in pixels of the frame; None on a good part.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    defect: str | None
    place: tuple[int, int] | None

    def __str__(self) -> str:
        """Give the text that travels on a verdict: ``000123 good`` or ``000124 scratch@131,88``."""
        if self.defect is None or self.place is None:
            return f"{self.index:06d} good"
        return f"{self.index:06d} {self.defect}@{self.place[0]},{self.place[1]}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read what ``str(part)`` wrote.

        Raises:
            ValueError: the text is of another form.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is not a simulated part; "
                "expected one like '000123 good' or '000124 scratch@131,88'"
            )
        index, defect, x, y = found.groups()
        part = cls(int(index), defect, None if defect is None else (int(x), int(y)))
        if str(part) != text:
            raise ValueError(f"{text!r} is not a simulated part; expected it to read {str(part)!r}")
        return part
