"""The region of interest is one fact, from the recording to the config: here it is held against each step."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from foundation.errors import InputError
from pictures.frames import Roi, Size
from pictures.image_file import read_image
from pictures.locating.reference import Reference, lies_inside
from pictures.recording_note import note_of
from pictures.trained_on import TrainedOn
from pictures.view import View


class Seen(NamedTuple):
    """What images show of a camera's picture."""

    cut: Roi | None
    """What has to be cut out of them first; None when they show it as they are."""
    roi: Roi | None
    """What they then show of the camera's picture; None for all of it, or where nobody knows."""
    camera_picture: Size | None
    """Height and width of the camera's whole picture; None where they do not say."""
    reference: Reference | None = None
    """By which the part is brought to its place first; None where it is left where it lies."""

    @property
    def view(self) -> View:
        """What a model sees of each of these images."""
        return View.of(self.cut, self.reference)


def seen_region(
    files: Sequence[Path],
    given: Roi | None,
    trained: TrainedOn | None = None,
    *,
    reference: Reference | None = None,
    option: str = "--roi",
) -> Seen:
    """Find out which region images show, and that it is the one that everything else says.

    Images that ``inspectctl record`` wrote bring a note. Others show what the options say of them; where a
    model has a region of its size, they are taken for cut out already.

    Args:
        files: the images; at least one.
        given: the region to cut out of them, by the user's word.
        trained: what a model that is to judge them was trained on; its region holds where none is given.
        reference: by which a part is brought to its place; that of the model when None.
        option: how the user gives a region, for what is said about mistakes.

    Raises:
        InputError: the images show different regions, are cut out already and ``given`` would do so again, or
            show another region than the model was trained on.
    """
    model = None if trained is None else _whole(trained.roi, trained.camera_picture)
    noted = _one_note(files)
    if reference is None and trained is not None:
        reference = trained.reference
    if reference is not None:
        _refuse_other(option, given, model)
        return _with_reference(noted, given or (model and model.roi), reference, option)
    if noted is None:
        _refuse_other(option, given, model)
        roi = given or (model and model.roi)
        cut = None if given is None and roi is not None and _has_size(files[0], roi) else roi
        return Seen(cut, roi, model and model.camera_picture)
    file, shown = noted
    if shown.roi is not None:
        if given not in {None, Roi(0, 0, shown.roi.width, shown.roi.height)}:
            raise InputError(
                f"{file}: was recorded with the region {shown.roi}, and {option} {given.option} would cut it "
                f"once more: leave {option} out, the region goes with the pictures"
            )
        if model is not None and model.is_known and not shown.agrees_with(model):
            raise InputError(
                f"{file}: shows {shown}, but the model was trained on {model}: "
                "give pictures of the model's region, or train on this one"
            )
        return Seen(None, shown.roi, shown.camera_picture)
    _refuse_other(option, given, model)
    if model is not None and model.camera_picture not in {None, shown.camera_picture}:
        raise InputError(
            f"{file}: shows {shown}, but the model was trained on {model}: "
            "set the camera to the same size, or train on this one"
        )
    cut = _whole(given or (model and model.roi), shown.camera_picture).roi
    if cut is not None and shown.camera_picture != read_image(file).shape[:2]:
        raise InputError(
            f"{file}: shows {shown} in another size, as an archive of rejects does, so {cut} cannot be cut "
            "out of it: give pictures that inspectctl record wrote"
        )
    return Seen(cut, cut, shown.camera_picture)


def _with_reference(
    noted: tuple[Path, "_Shown"] | None, roi: Roi | None, reference: Reference, option: str
) -> Seen:
    """A part can be brought to its place in whole pictures of its camera alone."""
    picture = reference.picture
    if noted is not None and noted[1] != _Shown(None, picture):
        file, shown = noted
        raise InputError(
            f"{file}: shows {shown}, but the part was taught on whole pictures of "
            f"{picture.width}×{picture.height}: give such pictures, or teach the part on these"
        )
    if roi is not None and not lies_inside(roi, picture):
        raise InputError(
            f"{option}: found {roi.option}, which does not lie inside the reference's picture of "
            f"{picture.width}×{picture.height} pixels"
        )
    return Seen(roi, roi, picture, reference)


class _Shown(NamedTuple):
    roi: Roi | None
    camera_picture: Size | None

    @property
    def is_known(self) -> bool:
        return self.roi is not None or self.camera_picture is not None

    def agrees_with(self, other: "_Shown") -> bool:
        sizes = {self.camera_picture, other.camera_picture} - {None}
        return self.roi == other.roi and len(sizes) <= 1

    def __str__(self) -> str:
        size = self.camera_picture
        whole = "a picture" if size is None else f"a picture of {size.width}×{size.height}"
        return f"the whole of {whole}" if self.roi is None else f"the region {self.roi} of {whole}"


def _whole(roi: Roi | None, picture: Size | None) -> _Shown:
    """Take a region that is the whole picture for none."""
    if picture is not None and roi == Roi(0, 0, picture.width, picture.height):
        return _Shown(None, picture)
    return _Shown(roi, picture)


def _one_note(files: Iterable[Path]) -> tuple[Path, _Shown] | None:
    """Give what all the images with a note show, and one of them; None where there are none."""
    first: tuple[Path, _Shown] | None = None
    for file in files:
        note = note_of(file)
        if note is None:
            continue
        shown = _whole(note.roi, note.camera_picture)
        if first is None:
            first = file, shown
        elif shown != first[1]:
            raise InputError(
                f"{file}: shows {shown}, but {first[0]} shows {first[1]}: "
                "expected images of one region; take one kind out, or record it again"
            )
    return first


def _refuse_other(option: str, given: Roi | None, model: _Shown | None) -> None:
    if given is None or model is None or not model.is_known:
        return
    if _whole(given, model.camera_picture).roi != model.roi:
        raise InputError(
            f"{option}: found {given.option}, but the model was trained on {model}: "
            f"leave {option} out, or train on this region"
        )


def _has_size(file: Path, roi: Roi) -> bool:
    return bool(read_image(file).shape[:2] == (roi.height, roi.width))
