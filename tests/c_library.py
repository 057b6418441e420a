"""Compiles what a test puts in the place of a part of the system."""

import shutil
import subprocess
from pathlib import Path

import pytest


def c_library(source: Path, target: Path) -> Path:
    """Compile a C file as a shared library, and give its path; the test is skipped without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("wants a C compiler, for what it puts in the place of a part of the system")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", target, source], check=True)
    return target
