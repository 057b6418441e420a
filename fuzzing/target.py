"""The seam behind which every target of the fuzzer stands."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Chance = random.Random


class Target(Protocol):
    """A part of inspectd that reads what others wrote.

    A module of a target names its class ``Target``; it is made with a folder in which it may write.
    """

    documented: tuple[type[Exception], ...]
    """What ``run`` may raise: the refusals that the part's own documentation promises."""
    longest: int
    """Bytes of an input."""
    words: Sequence[str]
    """What the format is made of, to be mixed into inputs."""

    def seeds(self) -> list[bytes]:
        """Give sound inputs to begin with."""
        ...

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        """Change an input so that it keeps some of its structure."""
        ...

    def run(self, data: bytes) -> None:
        """Feed one input.

        Raises:
            AssertionError: the part has broken a promise, such as to read what it wrote.
            Exception: one of ``documented``, or a bug.
        """
        ...


def must_be_one_line(error: Exception, path: Path) -> None:
    """See that what a user would read is one bounded line that names the file."""
    text = str(error)
    assert str(path) in text, f"the file is not named: {text:.200}"
    assert text.isprintable(), f"not one printable line: {text!r:.300}"
    assert len(text) <= 2000, f"a line of {len(text)} characters: {text:.200}"
