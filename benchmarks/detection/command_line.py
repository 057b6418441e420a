import shlex
from collections.abc import Sequence
from pathlib import Path


def as_shown(script: str, words: Sequence[str]) -> str:
    """Give a command for a page: of data that lies elsewhere, on whatever machine, its name is enough."""
    shown = [Path(word).name if word.startswith(("/", "..")) else word for word in words]
    return shlex.join(["python", f"benchmarks/{script}", *shown])
