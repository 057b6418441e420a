"""Libraries that put one function of the system out of order for one daemon."""

import shutil
import subprocess
from pathlib import Path

import pytest


def built(source: str, folder: Path) -> str:
    """Compile a C file that lies here, and give the library's path, for ``LD_PRELOAD``."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("wants a C compiler, for a daemon whose system fails")
    file = Path(__file__).with_name(source)
    library = folder / file.with_suffix(".so").name
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, file], check=True)
    return str(library)
