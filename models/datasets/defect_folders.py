"""Folders of defective parts, one for each type of defect, and the folders of their masks beside them."""

from collections.abc import Iterable
from pathlib import Path

from foundation.errors import InputError
from models.datasets.data_set import GOOD, Sample
from pictures.frames import images_in


def samples_in(folder: Path, masks: Path | None, without: Iterable[str] = ()) -> list[Sample]:
    """List the images in ``folder/good`` and in its other folders, which are named after defects.

    Args:
        folder: holds ``good`` and a folder for each type of defect.
        masks: holds a folder of masks for each type of defect that has any, ``<image>_mask.*`` or
            ``<image>.*``; None, or a folder that is not there, when there are no masks.
        without: names of folders that hold no images of parts.

    Raises:
        InputError: a folder is missing or empty, or masks and images of a type do not belong together.
    """
    samples = [Sample(image, None) for image in images_in(folder / GOOD)]
    skipped = {GOOD, *without}
    types = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in skipped]
    if not types:
        raise InputError(f"{folder}: has no folder of defective parts beside {GOOD}")
    for kind in types:
        images = images_in(kind)
        drawn = masks / kind.name if masks is not None else None
        if drawn is None or not drawn.is_dir():
            samples += [Sample(image, kind.name) for image in images]
            continue
        found = _masks_by_image(drawn)
        for image in images:
            mask = found.pop(image.relative_to(kind).with_suffix(""), None)
            if mask is None:
                expected = drawn / image.relative_to(kind).with_suffix("")
                raise InputError(f"{image}: has no mask; expected {expected}_mask.png")
            samples.append(Sample(image, kind.name, (mask,)))
        for mask in found.values():
            raise InputError(f"{mask}: no image in {kind} belongs to this mask")
    return samples


def _masks_by_image(folder: Path) -> dict[Path, Path]:
    masks = {}
    for mask in images_in(folder):
        name = mask.relative_to(folder).with_suffix("")
        masks[name.with_name(name.name.removesuffix("_mask"))] = mask
    return masks
