"""The command ``import-anomalib``: a checkpoint of anomalib's EfficientAD in, a model of ours out."""

import argparse
from pathlib import Path

from foundation.errors import InputError
from foundation.files import check_writable
from foundation.option_types import file_name
from foundation.parser import Parser
from models.option_types import image_size

PROG = "import-anomalib"


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    out: Path = options.out or options.checkpoint.with_suffix(".onnx")
    if out.suffix != ".onnx":
        raise InputError(f"{out}: expected a name ending in .onnx")
    check_writable(out)
    from foundation.files import sha256
    from models.efficientad.anomalib_checkpoint import load_anomalib

    padding = None if options.padding is None else options.padding == "yes"
    model = load_anomalib(options.checkpoint, options.image_size, padding)
    model.export(out, sha256(options.checkpoint))
    print(
        f"{out}: EfficientAD of size {model.size}, {model.image_size} pixels,"
        f" networks {'with' if model.anomalib.padding else 'without'} padding,"
        f" maps with a border of {model.anomalib.border} cells\n"
        f"next: build-engine {out}"
    )
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = Parser(
        prog=PROG,
        description="Turn a checkpoint of anomalib's EfficientAD into an ONNX model with the same scores."
        " Nothing in the file is executed.",
    )
    command.add_argument(
        "checkpoint",
        type=file_name,
        help="of Lightning (.ckpt), or a torch export (.pt); anomalib 0.7 to 2.7",
    )
    command.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: the checkpoint's name with .onnx"
    )
    command.add_argument(
        "--image-size",
        type=image_size,
        metavar="N|HxW",
        help="what the model sees; default: what the file says, else 256",
    )
    command.add_argument(
        "--padding",
        choices=("yes", "no"),
        help="whether its networks pad; default: what the file says, else no",
    )
    return command
