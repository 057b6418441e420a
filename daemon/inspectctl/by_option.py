"""Who does what the journal keeps."""

import argparse
import getpass


def add_by_option(parser: argparse.ArgumentParser, does: str) -> None:
    """Add the option that ``by`` reads; ``does`` goes on after "who"."""
    parser.add_argument("--by", metavar="NAME", help=f"who {does} (default: the user of this machine)")


def by(options: argparse.Namespace) -> str | None:
    """Give the name that was given, or the user's; None for a user without a name."""
    if options.by:
        return str(options.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
