import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.option_types import number, whole_number

if TYPE_CHECKING:
    from pictures.frames import Size
    from pictures.mask import Region


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "mask",
        help="say where to look in a camera's picture",
        description="Say where to look in a camera's picture: calibrate and the daemon leave the rest out.",
    )
    what = parser.add_subparsers(metavar="WHAT", required=True)
    suggest = what.add_parser(
        "suggest",
        help="draw around the part, from good pictures",
        description="Find in good pictures what never changes and carries no part, and leave it out.",
    )
    suggest.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="files, or folders of images")
    suggest.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as part.mask.yaml")
    suggest.add_argument(
        "--locate", type=Path, metavar="FILE", help="by which each part is brought to its place first"
    )
    suggest.add_argument(
        "--margin",
        type=number(0, 1000),
        default=None,
        metavar="PIXELS",
        help="around the part, that is looked at, too (default: a fiftieth of the picture's shorter side)",
    )
    suggest.add_argument("--show", type=Path, metavar="PNG", help="write a picture of what is looked at")
    suggest.set_defaults(run=_suggest)
    draw = what.add_parser(
        "draw",
        help="draw a mask on a page, or make it of polygons or a picture",
        description="Draw a mask over a picture on a page for your browser, or make it of polygons, or of a "
        "picture that is white where to look. The page begins with the regions that --out holds already.",
    )
    draw.add_argument("picture", type=Path, help="a picture of the camera, of the size of the mask")
    draw.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as part.mask.yaml")
    how = draw.add_mutually_exclusive_group()
    how.add_argument(
        "--region",
        action="append",
        type=_region,
        metavar="NAME:X,Y X,Y X,Y…[:weight=W|:threshold=T]",
        help="a polygon to look into; several may follow, later ones hold where they overlap",
    )
    how.add_argument("--white", type=Path, metavar="PICTURE", help="white where to look, black elsewhere")
    draw.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=0,
        metavar="N",
        help="of the page (default: a free one)",
    )
    draw.add_argument("--show", type=Path, metavar="PNG", help="write a picture of what is looked at")
    draw.set_defaults(run=_draw)


def _region(text: str) -> tuple[str, list[tuple[float, float]], dict[str, float]]:
    name, *rest = text.split(":")
    wrong = argparse.ArgumentTypeError(
        f"found {text!r:.80}, expected NAME:X,Y X,Y X,Y with at least three corners, and perhaps "
        ":weight=W or :threshold=T"
    )
    if not 1 <= len(rest) <= 2 or not name.strip():
        raise wrong
    plain = r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?"
    corners = rest[0].split()
    if len(corners) < 3 or not all(re.fullmatch(rf"{plain},{plain}", corner, re.ASCII) for corner in corners):
        raise wrong
    options: dict[str, float] = {}
    if len(rest) == 2:
        option = re.fullmatch(rf"(weight|threshold)=({plain})", rest[1].strip(), re.ASCII)
        if option is None:
            raise wrong
        options[option[1]] = float(option[2])
    pairs = [corner.split(",") for corner in corners]
    return name.strip(), [(float(x), float(y)) for x, y in pairs], options


def _suggest(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from foundation.errors import InputError
    from pictures.image_file import read_image
    from pictures.image_folder import files_of
    from pictures.locating.reference_file import read_reference
    from pictures.suggest_mask import suggest
    from pictures.view import View

    _check_targets(options)
    files = files_of(options.images)
    view = View.of(None, None if options.locate is None else read_reference(options.locate))
    first = read_image(files[0])
    margin = min(first.shape[:2]) / 50 if options.margin is None else options.margin
    reading = files[0]

    def pictures() -> Any:
        nonlocal reading
        for reading in tqdm(files, desc="reading", unit="picture", leave=False, disable=None):
            yield view.see(read_image(reading))

    try:
        size, regions = suggest(pictures(), margin)
    except InputError as error:
        raise error if str(reading) in str(error) else InputError(f"{reading}: {error}") from error
    _write(options.out, size, regions)
    return _said(options, view.see(first))


def _draw(options: argparse.Namespace) -> int:
    from foundation.errors import InputError
    from pictures.frames import Size
    from pictures.image_file import read_image
    from pictures.mask import read_mask
    from pictures.mask_regions import regions_of

    _check_targets(options)
    picture = read_image(options.picture)
    size = Size(*picture.shape[:2])
    if options.white is not None:
        mask = read_mask(options.white)
        if mask.picture != size:
            raise InputError(
                f"{options.white}: {mask.picture.width}×{mask.picture.height} pixels, but "
                f"{options.picture} has {size.width}×{size.height}"
            )
        regions = regions_of(mask)
    elif options.region is None:
        return _draw_on_a_page(options, picture, size)
    else:
        regions = tuple(_checked(*given, size=size) for given in options.region)
    _write(options.out, size, regions)
    return _said(options, picture)


def _draw_on_a_page(options: argparse.Namespace, picture: Any, size: "Size") -> int:
    from pictures.drawing.server import DrawingPage
    from pictures.mask import check_regions, read_regions

    before = read_regions(options.out, size) if options.out.exists() else ()

    def save(regions: "tuple[Region, ...]") -> str:
        check_regions(options.out, size, regions)
        _write(options.out, size, regions)
        _said(options, picture)
        return f"saved in {options.out}: go on, or press Ctrl-C at the terminal"

    with DrawingPage(picture, before, save, options.port) as page:
        print(f"open {page.address} in a browser on this machine, draw, and save; Ctrl-C ends", flush=True)
        try:
            page.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            print()
    return 0


def _checked(
    name: str, corners: list[tuple[float, float]], about: dict[str, float], *, size: "Size"
) -> "Region":
    from pydantic import ValidationError

    from foundation.errors import InputError
    from pictures.mask import Region

    if not any(0 <= x < size.width for x, _ in corners) or not any(0 <= y < size.height for _, y in corners):
        raise InputError(
            f"--region {name}: does not lie inside the picture of {size.width}×{size.height} pixels"
        )
    try:
        return Region(name=name, polygon=tuple(corners), **about)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"--region {name}: {key}: {first['msg']}") from error


def _check_targets(options: argparse.Namespace) -> None:
    from foundation.errors import InputError
    from foundation.files import check_writable

    if options.out.suffix.lower() not in {".yaml", ".yml"}:
        raise InputError(f"{options.out}: expected a name ending in .yaml; a picture is a mask as it is")
    check_writable(options.out)
    if options.show is not None:
        if options.show.suffix.lower() != ".png":
            raise InputError(f"--show {options.show}: expected a name ending in .png")
        check_writable(options.show)


def _write(path: Path, size: "Size", regions: "tuple[Region, ...]") -> None:
    from foundation.files import replacing
    from foundation.yaml_file import yaml_text

    content = {
        "format_version": 1,
        "picture": {"width": size.width, "height": size.height},
        "regions": [region.model_dump(mode="json", exclude_defaults=True) for region in regions],
    }
    with replacing(path) as file:
        file.write(b"# Where to look. Each region may have a weight (2 is twice as strict) or a threshold.\n")
        file.write(yaml_text(content).encode())


def _said(options: argparse.Namespace, picture: Any) -> int:
    import cv2

    from foundation.files import write_whole
    from pictures.heatmap import MapGeometry, shaded
    from pictures.mask import read_mask

    mask = read_mask(options.out)
    looks = mask.weights > 0
    if options.show is not None:
        geometry = MapGeometry(mask.picture, mask.picture, (1.0, 1.0))
        write_whole(options.show, cv2.imencode(".png", shaded(picture, looks, geometry))[1].tobytes())
    print(
        f"{options.out}: {mask}, {', '.join(mask.names[:8])}: {looks.mean():.0%} of the picture\n"
        f"next: calibrate … --mask {options.out}, and mask: {options.out} in the config"
    )
    return 0
