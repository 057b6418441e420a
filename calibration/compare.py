"""What would change where another calibration was in use until now."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.calibration_file import Calibration
from calibration.detection import Floats


@dataclass(frozen=True)
class Compared:
    """An earlier calibration, and the scores of this one's images as it gives them.

    Attributes:
        file: the earlier one's.
        old: what it says.
        good_scores: of the good images; None when it is of another engine.
        defective_scores: of the defective images; None where there are none, or when it is of another engine.
    """

    file: Path
    old: Calibration
    good_scores: Floats | None
    defective_scores: Floats | None

    def changed(self, before: Floats, now: Floats, threshold: float) -> tuple[list[int], list[int]]:
        """List the images that would be rejected now and were not, and those that were and would not be.

        Args:
            before: scores by the earlier calibration, N float64.
            now: scores by the new one, of the same images.
            threshold: the new one's.
        """
        was, would = before > self.old.threshold, now > threshold
        newly, no_longer = np.flatnonzero(would & ~was), np.flatnonzero(was & ~would)
        return [int(index) for index in newly], [int(index) for index in no_longer]
