import argparse
from pathlib import Path
from typing import Any

from foundation.errors import InputError


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "keygen",
        help="make a pair of keys for a line or a client",
        description="Make NAME.key, which may be shown to everybody, and NAME.key_secret, which may not, and "
        "print the lines of the config that name them.",
    )
    parser.add_argument("name", help="of the line, or of the client that is to connect to it")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to (default: this folder)"
    )
    parser.set_defaults(run=_keygen)


def _keygen(options: argparse.Namespace) -> int:
    import tempfile

    from zmq.auth import create_certificates, load_certificate

    from verdicts.checks import NAME

    if not NAME.fullmatch(options.name):
        raise InputError(f"NAME: found {options.name!r}, expected 1 to 64 letters, digits, '_', '.' or '-'")
    try:
        # In a folder that nobody else can enter; the names appear with the right mode, or not at all.
        with tempfile.TemporaryDirectory(dir=options.out, prefix=".keygen-") as folder:
            made = [Path(file) for file in create_certificates(folder, options.name)]
            written = _moved(made, options.out)
    except OSError as error:
        raise InputError(f"{options.out}: keys cannot be written: {error.strerror}") from error
    public_key = load_certificate(written[0])[0].decode()
    print(
        f"wrote {written[0]} and {written[1]}\n\n"
        f"# in the config of the line whose own keys these are:\n"
        f"curve:\n  secret_key: {written[1].resolve()}\n\n"
        f"# or in the config of a line to which {options.name} may connect:\n"
        f"curve:\n  clients:\n    {options.name}:\n      key: '{public_key}'\n"
        f"      control: false  # true: may also reload and select"
    )
    return 0


def _moved(made: list[Path], folder: Path) -> list[Path]:
    """Give the public and the secret file their names, neither when one of them is taken."""
    targets = [folder / file.name for file in made]
    for target in targets:
        if target.exists() or target.is_symlink():
            raise InputError(f"{target}: is there already; keys are never overwritten")
    linked: list[Path] = []
    try:
        for file, target, mode in zip(made, targets, (0o644, 0o600), strict=True):
            file.chmod(mode)
            target.hardlink_to(file)  # fails when the name has been taken meanwhile
            linked.append(target)
    except OSError:
        for target in linked:
            target.unlink()
        raise
    return targets
