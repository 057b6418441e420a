"""The command ``train-model``: good images in, a model out."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError
from foundation.files import check_writable
from foundation.parser import Parser
from models.option_types import DEFAULT_STEPS, DEFAULT_TEACHER, STFPM_STEPS, positive
from models.options import (
    add_data,
    add_image_size,
    add_locate,
    add_mask,
    add_penalty,
    add_region,
    add_seed,
    add_size,
    add_teacher,
    add_tiles,
)
from models.settings_file import apply_settings

if TYPE_CHECKING:  # torch, for which --help should not wait
    import numpy as np
    from numpy.typing import NDArray

    from models.method import GivenMask, GoodImages, Method, Model
    from pictures.locating.reference import Reference

PROG = "train-model"

METHODS = ("auto", "padim", "patchcore", "stfpm", "efficientad")


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if any(word.partition("=")[0] == "--plan" for word in words):
        from models import plan_cli

        return plan_cli.run(words)
    command = parser()
    apply_settings(command, words)
    options = command.parse_args(argv)
    try:
        update(options) if options.update is not None else train(options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {_kept(options)}") from stop
    return 0


def _kept(options: argparse.Namespace) -> str:
    """Say what an interrupted training leaves."""
    from models.efficientad.checkpoint import progress_file

    if options.out is not None and progress_file(options.out.with_suffix(".pt")).exists():
        return "the same command resumes from the last checkpoint"
    return f"{options.update or options.out} was not written"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = Parser(prog=PROG, description="Learn from images of good parts what a good part looks like.")
    command.epilog = "Many models at once: train-model --plan FILE --help"
    add_data(command)
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="FILE", help="the model, for instance line3.onnx")
    target.add_argument(
        "--update", type=Path, metavar="FILE", help="a model of padim that learns these images, too"
    )
    command.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="default auto: padim or patchcore, whichever finds more of defects painted on good images",
    )
    command.add_argument("--settings", type=Path, metavar="FILE", help="these options in YAML")
    command.add_argument(
        "--defects", type=Path, metavar="DIR", help="images of defective parts, to say what the model finds"
    )
    add_image_size(command, default=None)
    add_region(command)
    add_locate(command)
    add_mask(command)
    add_tiles(command)
    command.add_argument(
        "--backbone",
        default="lite0",
        metavar="NAME",
        help="of padim, patchcore and stfpm: lite0, lite1, lite2, an ONNX classifier or torchvision:NAME;"
        " default lite0",
    )
    command.add_argument("--layers", nargs="+", metavar="NAME", help="of the backbone, to join")
    command.add_argument(
        "--channels",
        type=positive,
        metavar="N",
        help="padim: principal components; default: at most 100, and what fits an engine of 60 MB",
    )
    command.add_argument(
        "--coreset", type=positive, default=1000, metavar="N", help="patchcore: patches kept; default 1000"
    )
    for add in (add_size, add_penalty):
        add(command, "efficientad: ")
    add_teacher(command, "efficientad: ", DEFAULT_TEACHER)
    command.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help=f"of training; default {DEFAULT_STEPS} of efficientad, {STFPM_STEPS} of stfpm",
    )
    add_seed(command, "all that is drawn")
    return command


def train(options: argparse.Namespace) -> None:
    """Learn a model from nothing."""
    began = time.monotonic()
    _check_target(options.out)
    from models.choose import choose

    good = good_images(options, given_reference(options))
    _check_defects(options.defects)
    methods = _methods(options)
    if options.method == "auto":
        name, reason = choose({name: methods[name] for name in ("padim", "patchcore")}, good, options.seed)
        print(f"--method auto: {name}, {reason}")
    else:
        name = options.method
    model = methods[name].fit(good)
    model.export(options.out)
    print(
        f"{options.out}: {name}, {good.size} pixels, {good.pictures} good images,"
        f" {time.monotonic() - began:.0f} s"
    )
    _report(model, options, good)


def update(options: argparse.Namespace) -> None:
    """Let a model learn more images."""
    began = time.monotonic()
    _check_target(options.update)
    from models.method import TRAINING_MASK
    from models.padim.sums_file import load_sums, sums_file
    from pictures.trained_on import trained_on

    if not options.update.is_file():
        raise InputError(f"{options.update}: is missing; expected a model of 'train-model --method padim'")
    before = load_sums(sums_file(options.update))
    size = before.trunk.size
    trained = trained_on(before.about)
    if options.image_size not in (None, size):
        raise InputError(
            f"--image-size {options.image_size}: {options.update} was fitted at {size}; leave it out"
        )
    for option in ("roi", "tiles"):
        given, was = getattr(options, option), getattr(trained, option)
        if given is not None and given != was:
            raise InputError(
                f"--{option} {given}: {options.update} was fitted with {was or 'none'}; leave it out"
            )
    reference = given_reference(options)
    if reference is not None and reference != trained.reference:
        raise InputError(
            f"--locate {options.locate}: {options.update} was fitted with {trained.reference or 'none'}; "
            "leave it out"
        )
    options.image_size, options.roi, options.tiles = size, trained.roi, trained.tiles
    good = good_images(options, trained.reference)
    _check_defects(options.defects)
    if (good.mask.mask.digest if good.mask else None) != before.about.get(TRAINING_MASK):
        was = before.about.get(TRAINING_MASK)
        expected = "none" if was is None else f"the mask {was[:12]}…"
        raise InputError(
            f"--mask: found {options.mask or 'none'}, but {options.update} was fitted with {expected}"
        )
    looks = good.looks(before.trunk.grid, {})
    model = before.with_more(good.images, good.pictures, good.digest, looks)
    model.export(options.update)
    print(
        f"{options.update}: {good.pictures} good images more, {model.about['training_images']} in all,"
        f" {time.monotonic() - began:.0f} s"
    )
    _report(model, options, good)


def given_reference(options: argparse.Namespace) -> "Reference | None":
    """Read the taught part that ``--locate`` names."""
    from pictures.locating.reference_file import read_reference

    return None if options.locate is None else read_reference(options.locate)


def good_images(options: argparse.Namespace, reference: "Reference | None") -> "GoodImages":
    """Read all good images that a data set has for training; those for validation, too."""
    import torch

    from models import training_images
    from models.datasets.open import open_data_set
    from models.method import GoodImages
    from pictures.digest import pack_digests, set_digest
    from pictures.frames import Size
    from pictures.region import seen_region

    data_set = open_data_set(options.data, options.layout)
    found = data_set.good()
    files = [*found.training, *found.validation]
    size = options.image_size or Size(256, 256)
    seen = seen_region(files, options.roi, reference=reference)
    pictures = training_images.stack(files, size, seen.view, options.tiles)
    sizes = sorted(set(pictures.sizes))
    if seen.cut is None and options.tiles is None and len(sizes) > 1:
        print(
            f"images of {len(sizes)} sizes, from {sizes[0]} to {sizes[-1]} pixels: all are resized to {size}",
            file=sys.stderr,
        )
    return GoodImages(
        images=torch.cat(pictures.images),
        pictures=len(files),
        size=size,
        seen=seen,
        tiles=options.tiles,
        digest=set_digest(data_set.root, files),
        pixel_digests=pack_digests(pictures.digests),
        mask=_given_mask(options, files[0]),
    )


def _given_mask(options: argparse.Namespace, image: Path) -> "GivenMask | None":
    """Read the mask that ``--mask`` names."""
    from models.method import GivenMask
    from pictures.mask import read_mask

    if options.mask is None:
        return None
    if options.tiles is not None:
        raise InputError(f"--mask {options.mask}: not with --tiles: give it to calibrate")
    return GivenMask(options.mask, read_mask(options.mask), image)


def _methods(options: argparse.Namespace) -> "dict[str, Method]":
    """Give the methods with their settings."""
    from models.efficientad.method import EfficientAdMethod
    from models.padim.fit import Padim
    from models.patchcore.fit import PatchCore
    from models.stfpm.fit import Stfpm

    layers = tuple(options.layers) if options.layers else None
    return {
        "padim": Padim(options.backbone, layers, options.channels),
        "patchcore": PatchCore(options.backbone, layers, options.coreset, seed=options.seed),
        "stfpm": Stfpm(options.backbone, layers, options.steps or STFPM_STEPS, seed=options.seed),
        "efficientad": EfficientAdMethod(
            options.out.with_suffix(".pt"),
            options.steps or DEFAULT_STEPS,
            options.size,
            options.penalty_images,
            options.teacher,
            seed=options.seed,
        ),
    }


def _check_target(out: Path) -> None:
    """Find out before the work, not after it, that its result could not be written."""
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name ending in .onnx")
    check_writable(out)


def _check_defects(folder: Path | None) -> None:
    from pictures.image_folder import images_in

    if folder is not None:
        images_in(folder)


def _report(model: "Model", options: argparse.Namespace, good: "GoodImages") -> None:
    """Say how good the model is, as far as that can be known."""
    import numpy as np

    from calibration.tail import CONFIDENCE, FEWEST_SCORES, fit_threshold

    out = options.update or options.out
    scores = np.sort(model.held_out_scores)
    print(
        f"{len(scores)} held-out good images score {np.median(scores):.3f} (median) to {scores[-1]:.3f},"
        f" standard deviation {scores.std():.3f}"
    )
    if len(scores) >= FEWEST_SCORES:
        threshold = fit_threshold(scores, 0.01)
        low, high = threshold.rate_interval
        print(
            f"a threshold of {threshold.value:.3f} would reject 1 % of good parts, with {CONFIDENCE:.0%}"
            f" confidence {low:.2%} to {high:.2%}"
        )
    else:
        print(
            f"for a promise of how many good parts are rejected, {FEWEST_SCORES} held-out images are needed"
        )
    if options.defects is None:
        print("how many defects it finds is not known without any: give --defects DIR, or evaluate-model")
    else:
        print(_found(out, scores, options.defects))
    print(f"next: build-engine {out}")


def _found(out: Path, good: "NDArray[np.float64]", folder: Path) -> str:
    """Judge images of defective parts."""
    import numpy as np

    from calibration.detection import auroc
    from models.datasets.data_set import Sample
    from models.evaluation.evaluate import judge_samples
    from models.evaluation.judge import open_judge
    from pictures.image_folder import images_in

    samples = [Sample(file, "defective") for file in images_in(folder)]
    judged = judge_samples(open_judge(out, None), samples, None, None)
    above = int(np.count_nonzero(judged.scores > good[-1]))
    found = auroc(good, judged.scores)
    return (
        f"{len(samples)} defective images: AUROC {found:.3f} against the held-out good ones;"
        f" {above} score higher than all of these\n"
        + (
            f"it misses {len(samples) - above} of {len(samples)}: train longer, or give more good images"
            if above < len(samples)
            else "it misses none of them"
        )
    )
