import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.option_types import number, share, whole_number
from pictures.option_types import region

if TYPE_CHECKING:
    from pictures.frames import Frame

_WARNING = "inspectctl locate: warning"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "locate",
        help="teach where a part lies, so that each is brought to the same place",
        description="Teach where a part lies in the camera's picture, and try it out.",
    )
    what = parser.add_subparsers(metavar="WHAT", required=True)
    _add_teach(what)
    _add_try(what)


def _add_teach(what: Any) -> None:
    teach = what.add_parser(
        "teach",
        help="learn a part from pictures of good ones",
        description="Learn from whole pictures of good parts, at least three, where the part's edges lie.",
    )
    teach.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="files, or folders of images")
    teach.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as part.locate.png")
    teach.add_argument(
        "--part",
        type=region,
        metavar="X,Y,W,H",
        help="box around the part in the first image, which then is the reference"
        " (default: what the images have in common)",
    )
    teach.add_argument(
        "--search", type=region, metavar="X,Y,W,H", help="what of a picture is looked at (default: all of it)"
    )
    teach.add_argument(
        "--shift",
        type=number(0, 65_535),
        metavar="PIXELS",
        help="how far the part may lie from the reference (default: a quarter of the shorter side)",
    )
    teach.add_argument(
        "--turn",
        type=number(0, 180),
        default=15.0,
        metavar="DEGREES",
        help="how far it may be turned, up to 180 (default: %(default)g)",
    )
    teach.add_argument(
        "--scale",
        type=share(0, 0.3),
        default=0.0,
        metavar="SHARE",
        help="by how much its size may change, such as 5%% (default: not at all)",
    )
    teach.add_argument(
        "--residual",
        type=share(0.05, 0.9),
        default=0.6,
        metavar="SHARE",
        help="how many of its edges may be missing (default: 60%%)",
    )
    teach.set_defaults(run=_teach)


def _add_try(what: Any) -> None:
    tried = what.add_parser(
        "try",
        help="say where the part lies in some pictures",
        description="Say for each picture where the part lies, how well it fits and how long that took.",
    )
    tried.add_argument("reference", type=Path, metavar="FILE", help="of 'inspectctl locate teach'")
    tried.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="files, or folders of images")
    tried.add_argument(
        "--parts", type=whole_number(1, 64), default=1, metavar="N", help="in each picture (default: 1)"
    )
    tried.add_argument(
        "--show", type=Path, metavar="DIR", help="write each picture with the edges where they were found"
    )
    tried.set_defaults(run=_try)


def _teach(options: argparse.Namespace) -> int:
    import sys

    import numpy as np

    from foundation.errors import InputError
    from foundation.files import check_writable
    from pictures.image_file import read_image
    from pictures.image_folder import files_of
    from pictures.locating.locator import NotLocated
    from pictures.locating.reference_file import write_reference
    from pictures.locating.teach import NotShared, teach

    if options.out.suffix.lower() != ".png":
        raise InputError(
            f"{options.out}: expected a name ending in .png: the file shows the reference picture"
        )
    check_writable(options.out)
    files = files_of(options.images)
    _refuse_cut_out(files)
    pictures = [read_image(file) for file in _shown(files, "reading")]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise InputError(
                f"{file}: {picture.shape[1]}×{picture.shape[0]} pixels, but {files[0]} has "
                f"{pictures[0].shape[1]}×{pictures[0].shape[0]}: expected pictures of one camera"
            )
    if options.out.exists() and any(options.out.samefile(file) for file in files):
        raise InputError(f"{options.out}: is one of the pictures; name another file with --out")
    try:
        taught = teach(
            pictures,
            part=options.part,
            search=options.search,
            shift=options.shift,
            turn=options.turn,
            scale=options.scale,
            residual=options.residual,
            progress=lambda some: _shown(some, "looking for the part"),
        )
    except NotShared as error:
        raise InputError(f"{files[error.lost[0]]}: {error}") from error
    except InputError as error:
        raise InputError(f"{files[0]}: {error}") from error
    write_reference(options.out, taught.reference, pictures[taught.chosen])
    reference, allowed = taught.reference, taught.reference.allowed
    for file, place in zip(files, taught.places, strict=True):
        if isinstance(place, NotLocated):
            print(f"{_WARNING}: {file}: {place.reason}; it was left out", file=sys.stderr)
    if reference.symmetry is not None:
        print(f"{_WARNING}: {_of_symmetry(options.turn, reference.symmetry)}", file=sys.stderr)
    places = np.array([place[:5] for place in taught.places if not isinstance(place, NotLocated)])
    low, high = places.min(axis=0), places.max(axis=0)
    print(
        f"{options.out}: {reference}, a part of {reference.part} in {files[taught.chosen].name}, "
        f"{len(reference.points)} points on its edges\n"
        f"in {len(places)} of {len(files)} pictures: shifted {low[0]:+.1f} to {high[0]:+.1f} across and "
        f"{low[1]:+.1f} to {high[1]:+.1f} down, turned {low[2]:+.1f} to {high[2]:+.1f}°, "
        f"{np.median(places[:, 4]):.0%} of its edges missing (median) to {high[4]:.0%}\n"
        f"allowed: {allowed.shift:g} pixels, {allowed.turn:.3g}°, {allowed.scale:.0%} of its size, "
        f"{allowed.residual:.0%} of its edges missing\n"
        f"next: train-model --locate {options.out} …, and in the camera's config locate: "
        f"{{reference: {options.out}}}"
    )
    return 0


def _of_symmetry(wanted: float, symmetry: float) -> str:
    if symmetry == 0:
        return "the part looks the same at every turn, so that its turn is undecided: it is not looked for"
    same = f"the part looks the same when it is turned by {symmetry:.0f}°: which of them is undecided"
    if wanted > symmetry / 2:
        return f"{same}: only turns up to {symmetry / 2:.0f}° to each side are looked for"
    return f"{same}; turns up to {wanted:g}° leave no doubt"


def _refuse_cut_out(files: list[Path]) -> None:
    from foundation.errors import InputError
    from pictures.recording_note import note_of

    for file in files:
        note = note_of(file)
        if note is not None and note.roi is not None:
            raise InputError(
                f"{file}: shows the region {note.roi} alone; a part is taught on whole pictures: "
                "record them without --roi"
            )


def _try(options: argparse.Namespace) -> int:
    import time

    import cv2
    import numpy as np

    from foundation.errors import InputError
    from pictures.image_file import read_image
    from pictures.image_folder import files_of
    from pictures.locating.locator import Locator, Place
    from pictures.locating.reference_file import read_reference

    cv2.setNumThreads(1)  # as in a camera's process
    locator = Locator(read_reference(options.reference))
    files = files_of(options.images)
    if options.show is not None:
        options.show.mkdir(parents=True, exist_ok=True)
    took, lost = [], 0
    for file in files:
        picture = read_image(file)
        began = time.perf_counter()
        found = locator.locate_all(picture, options.parts)
        took.append((time.perf_counter() - began) * 1000)
        for place in found:
            if isinstance(place, Place):
                print(f"{file}: {place}")
            else:
                lost += 1
                print(f"{file}: not located: {place.reason}")
        if options.show is not None:
            target = options.show / f"{file.stem}.located.png"
            if target.resolve() == file.resolve():
                raise InputError(f"{target}: is the picture itself; name another folder with --show")
            places = [place for place in found if isinstance(place, Place)]
            target.write_bytes(cv2.imencode(".png", _drawn(locator, picture, places))[1].tobytes())
    print(
        f"{len(files)} pictures: {len(files) * options.parts - lost} of {len(files) * options.parts} parts "
        f"located, {np.median(took):.1f} ms each (median), {max(took):.1f} at most"
    )
    return 1 if lost else 0


def _drawn(locator: Any, picture: "Frame", places: list[Any]) -> "Frame":
    """Draw the box of each part and the points of its edges where they were found."""
    import cv2
    import numpy as np

    shown = picture.copy()
    reference = locator.reference
    x, y, width, height = reference.part
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], dtype=np.float64)
    for place in places:
        matrix = place.picture_from_reference(reference)
        box = (corners @ matrix[:, :2].T + matrix[:, 2]).round().astype(np.int32)
        cv2.polylines(shown, [box], True, (0, 220, 0), 2, cv2.LINE_AA)
        for at in reference.points[:, :2] @ matrix[:, :2].T + matrix[:, 2]:
            cv2.circle(shown, (round(at[0]), round(at[1])), 2, (0, 140, 255), -1, cv2.LINE_AA)
    return shown


def _shown(items: Any, what: str) -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=what, unit="picture", leave=False, disable=None)
