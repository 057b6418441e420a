"""Good test images for an object of MVTec LOCO that has none: those that it names for validation."""

import shutil
from pathlib import Path

from pictures.image_folder import images_in, is_folder, subfolders

EVERY = 10
"""One in so many training images is for validation then."""


def with_good_test(root: Path, folder: Path) -> Path:
    """Give a data set that has good test images.

    Args:
        root: of a data set.
        folder: in which links are laid where it has none.

    Returns:
        The root, or that of the links.
    """
    if is_folder(root / "test" / "good") or not is_folder(root / "validation" / "good"):
        return root
    made = folder / root.name
    shutil.rmtree(made, ignore_errors=True)
    training = images_in(root / "train" / "good")
    parts = {
        "train/good": [file for index, file in enumerate(training) if index % EVERY],
        "validation/good": training[::EVERY],
        "test/good": images_in(root / "validation" / "good"),
    }
    for name, files in parts.items():
        for file in files:
            link(made / name / file.name, file)
    for anomalies in subfolders(root / "test"):
        link(made / "test" / anomalies.name, anomalies)
    for name in ("ground_truth", "defects_config.json"):
        link(made / name, root / name)
    return made


def link(place: Path, target: Path) -> None:
    """Lay a symbolic link, with the folders on its way."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target.resolve())
