"""MVTec LOCO AD: as MVTec AD, with ``validation/good`` and several masks for an image.

The masks of ``test/<type>/003.png`` are ``ground_truth/<type>/003/*.png``, one for each defect, or one file,
``ground_truth/<type>/003.png``. The value of a defect's pixels names its kind, whose saturation threshold
stands in ``defects_config.json``.
"""

import json
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from models.datasets.data_set import GOOD, Good, Sample, Saturation, Saturations, Taken
from models.datasets.defect_folders import taken_for
from pictures.frames import Size
from pictures.image_file import read_image
from pictures.image_folder import images_in, is_folder, subfolders

CONFIG = "defects_config.json"

PUBLISHED = {
    "breakfast_box": Size(1280, 1600),
    "juice_bottle": Size(1600, 800),
    "pushpins": Size(1000, 1700),
    "screw_bag": Size(1100, 1600),
    "splicing_connectors": Size(850, 1700),
}
"""Size of the images of each object, of whose pixels its saturation thresholds speak."""


SAME_SHAPE = 0.01
"""By so much the shape of a reduced image may differ."""


class MvtecLoco:
    """One object of MVTec LOCO AD.

    Args:
        root: the object's folder, for instance ``mvtec_loco_anomaly_detection/pushpins``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return (path / CONFIG).is_file()

    def good(self) -> Good:
        return Good(
            images_in(self.root / "train" / "good"), tuple(images_in(self.root / "validation" / "good"))
        )

    def test(self) -> list[Sample]:
        folder = self.root / "test"
        samples = [Sample(image, None) for image in images_in(folder / GOOD)]
        types = [path for path in subfolders(folder) if path.name != GOOD]
        if not types:
            raise InputError(f"{folder}: has no folder of anomalies beside {GOOD}")
        for kind in types:
            for image in images_in(kind):
                samples.append(Sample(image, kind.name, self._masks(kind.name, image.stem)))
        return samples

    def _masks(self, kind: str, stem: str) -> tuple[Path, ...]:
        folder = self.root / "ground_truth" / kind / stem
        merged = folder.with_name(f"{stem}.png")
        if merged.is_file() and not is_folder(folder):
            return (merged,)
        return tuple(images_in(folder, masks=True))

    def _scale(self) -> float:
        """Say how many pixels there are for each of the published image, which was perhaps reduced."""
        published = PUBLISHED.get(self.root.resolve().name)
        if published is None:
            return 1.0
        height, width = read_image(self.good().training[0]).shape[:2]
        if abs(height * published.width / (width * published.height) - 1) > SAME_SHAPE:
            return 1.0
        return float(height * width / (published.height * published.width))

    def taken(self) -> list[Taken]:
        train, validation, test = self.root / "train", self.root / "validation", self.root / "test"
        return [
            *taken_for(train, good="good: training", others="left out"),
            *taken_for(validation, good="good: validation", others="left out"),
            *(taken_for(test, good="good: test", others="defective: test") if is_folder(test) else ()),
        ]

    def saturations(self) -> Saturations:
        path = self.root / CONFIG
        try:
            entries = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON: {error}") from error
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{path}: expected a list of defects")
        scale = self._scale()
        return dict(_saturation(path, index, entry, scale) for index, entry in enumerate(entries))


def _saturation(path: Path, index: int, entry: Any, scale: float) -> tuple[int, Saturation]:
    keys = {"pixel_value": int, "saturation_threshold": int | float, "relative_saturation": bool}
    values = []
    for key, kind in keys.items():
        found = entry.get(key) if isinstance(entry, dict) else None
        wrong = not isinstance(found, kind) or (kind is not bool and isinstance(found, bool))
        if wrong or (kind is not bool and not 0 < found < float("inf")):  # type: ignore[operator]
            expected = "true or false" if kind is bool else "a positive number"
            raise InputError(f"{path}: defect {index + 1}: {key}: expected {expected}, found {found!r:.40}")
        values.append(found)
    value, threshold, relative = values
    in_these: Any = threshold if relative else threshold * scale  # type: ignore[operator]
    return value, Saturation(float(in_these), relative)  # type: ignore[arg-type, return-value]
