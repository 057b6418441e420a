"""Give the next release its number: ``python release/set_version.py 0.2.0``.

``inspectd`` and ``inspectd-verdicts`` have the same version, and the first depends on exactly that of the
second. It is written in their two ``pyproject.toml`` alone; all else asks ``importlib.metadata``.
"""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

_VERSION = r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(?:rc[1-9][0-9]*)?"
_PLACES = {
    "pyproject.toml": (
        rf'(?m)(?<=^version = "){_VERSION}(?=")',
        rf'(?<="inspectd-verdicts==){_VERSION}(?=")',
    ),
    "distributions/verdicts/pyproject.toml": (rf'(?m)(?<=^version = "){_VERSION}(?=")',),
}


def set_version(version: str, repository: Path = REPOSITORY) -> None:
    """Write a version into both projects.

    Raises:
        ValueError: it is not a version, or a project does not say its version in the known way.
    """
    if not re.fullmatch(_VERSION, version):
        raise ValueError(f"{version!r} is not a version such as 0.2.0 or 0.2.0rc1")
    texts = {}
    for name, patterns in _PLACES.items():
        text = (repository / name).read_text()
        for pattern in patterns:
            text, found = re.subn(pattern, version, text)
            if found != 1:
                raise ValueError(f"{name}: {found} places match {pattern}, expected 1")
        texts[name] = text
    for name, text in texts.items():
        (repository / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        set_version(sys.argv[1])
    except ValueError as error:
        sys.exit(f"set_version: {error}")
