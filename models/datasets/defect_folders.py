"""Folders of defective parts, one for each type of defect, and the folders of their masks beside them."""

from pathlib import Path

from foundation.errors import InputError
from models.datasets.data_set import Sample, Taken
from pictures.folder_names import check_good, named, role
from pictures.image_folder import images_in, plain, subfolders


def good_in(folder: Path) -> list[Path]:
    """List the good images of a folder, in the one of its folders that is called good, OK, normal ….

    Raises:
        InputError: there is no such folder, it is empty, or not all in it is good by its name.
    """
    good = named(folder, "good")
    if good is None:
        raise InputError(
            f"{folder}: has no folder of good parts; expected one called good, OK, normal or pass"
        )
    check_good(good)
    return images_in(good)


def kinds_in(folder: Path) -> list[Path]:
    """List the folders of defective parts in a folder: all but those of good parts and of masks.

    Raises:
        InputError: a name may mean good or defective parts, or is that of a split.
    """
    kinds = []
    for path in subfolders(folder):
        found = role(path)
        if found in {"unclear", "train", "validation", "test"}:
            raise InputError(
                f"{path}: its name may mean good or defective parts; expected the name of a type of defect"
            )
        if found in {"defective", "unknown"}:
            kinds.append(path)
    return kinds


def taken_for(folder: Path, *, good: str, others: str) -> list[Taken]:
    """Say what the folders in a folder are taken for, without a look into an image.

    Args:
        folder: holds good images, or a folder of them and others.
        good: what becomes of the good ones.
        others: what becomes of the others, but for masks.
    """
    uses = {"good": good, "masks": "masks"}
    taken = [Taken(path, _count(path), uses.get(role(path), others)) for path in subfolders(folder)]
    if not any(path.what == good for path in taken) and others != "defective: test":
        taken.insert(0, Taken(folder, _count(folder), good))
    return taken


def _count(folder: Path) -> int:
    try:
        return len(images_in(folder, masks=True))
    except InputError:  # whoever reads them will hear
        return 0


def samples_in(folder: Path, masks: Path | None) -> list[Sample]:
    """List the good images of a folder, and those in its other folders, which are named after defects.

    Args:
        folder: holds a folder of good parts and one for each type of defect.
        masks: holds a folder of masks for each type of defect that has any, ``<image>_mask.*`` or
            ``<image>.*``, or the masks themselves where there is one type; None when there are no masks.

    Raises:
        InputError: a folder is missing, empty or ambiguous by its name, or masks and images of a type do not
            belong together.
    """
    samples = [Sample(image, None) for image in good_in(folder)]
    kinds = kinds_in(folder)
    if not kinds:
        raise InputError(f"{folder}: has no folder of defective parts beside the good ones")
    for kind in kinds:
        images = images_in(kind)
        drawn = _masks_of(kind, masks, alone=len(kinds) == 1)
        if drawn is None:
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


def _masks_of(kind: Path, masks: Path | None, *, alone: bool) -> Path | None:
    if masks is None:
        return None
    folders = subfolders(masks)
    for folder in folders:
        if plain(folder.name) == plain(kind.name):
            return folder
    return masks if alone and not folders else None


def _masks_by_image(folder: Path) -> dict[Path, Path]:
    masks = {}
    for mask in images_in(folder, masks=True):
        name = mask.relative_to(folder).with_suffix("")
        masks[name.with_name(name.name.removesuffix("_mask"))] = mask
    return masks
