"""With which keys a command connects to a line that encrypts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError

if TYPE_CHECKING:
    from verdicts import CurveKeys


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; they are needed where the line's config has a section ``curve``."""
    parser.add_argument("--key", type=Path, metavar="FILE", help="your secret key, NAME.key_secret of keygen")
    parser.add_argument("--server-key", type=Path, metavar="FILE", help="the line's public key, NAME.key")


def curve_keys(options: argparse.Namespace) -> "CurveKeys | None":
    """Read the keys that were given; None without.

    Raises:
        InputError: one of the two options is missing, or a file is not a key.
    """
    from verdicts import CurveKeys

    if options.key is None and options.server_key is None:
        return None
    if options.key is None or options.server_key is None:
        raise InputError("keys: expected --key and --server-key, or neither")
    try:
        return CurveKeys.read(options.key, options.server_key)
    except ValueError as error:
        raise InputError(str(error)) from error
