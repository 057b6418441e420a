"""Wheels of all that ``inspectd`` needs, for machines without internet."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

EXTRAS = ("build", "signed", "dashboard", "plant")
"""What a release carries besides the daemon's own needs. Not torch: a line's PC does not train. Not fleet's
needs, which are a server's."""

PYTHONS = ("3.11", "3.12")
"""Of Debian 12 and Ubuntu 24.04."""

_NEWEST_GLIBC = 36
"""Debian 12 has glibc 2.36, Ubuntu 24.04 a newer one."""

_SOURCE_ONLY = ("sdnotify",)
"""There is no wheel of these on PyPI: they are built here, and are pure Python."""


class NotFetched(Exception):
    """Pip could not fetch a wheel; the message is what it said last."""


def download(wheels: Path, python: str) -> None:
    """Fetch the wheels of all dependencies, and of pip, in the versions that are installed here.

    So what is released is what the tests ran with.

    Args:
        wheels: folder with the wheels of ``inspectd`` and ``inspectd-verdicts``; the others join them.
        python: version of the Python that will import them, such as ``3.12``.

    Raises:
        NotFetched: a wheel, or the network, is not there.
    """
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    (ours,) = wheels.glob("inspectd-*.whl")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version}\n" for name, version in sorted(_installed().items())))
        constraints.flush()
        options: list[str | Path] = ["--find-links", wheels, "--constraint", constraints.name]
        for name in _SOURCE_ONLY:
            if not any(wheels.glob(f"{name}-*.whl")):
                here = [*pip, "wheel", *options, "--no-deps", "--no-build-isolation", "--wheel-dir", wheels]
                _run([*here, name])
        systems = ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
        systems += [f"manylinux_2_{minor}_x86_64" for minor in range(5, _NEWEST_GLIBC + 1)]
        target = [f"--platform={name}" for name in systems]
        target += [f"--python-version={python}", "--implementation=cp"]
        target += [f"--abi={name}" for name in (f"cp{python.replace('.', '')}", "abi3", "none")]
        wanted = [f"{ours}[{','.join(EXTRAS)}]", "pip"]
        _run([*pip, "download", *options, "--only-binary=:all:", *target, "--dest", wheels, *wanted])


def _installed() -> dict[str, str]:
    """List what is installed, without our own, pip and builds that are on no index (torch's +cpu)."""
    versions = {found.metadata["Name"]: found.version for found in distributions()}
    return {
        name: version
        for name, version in versions.items()
        if not name.startswith("inspectd") and name != "pip" and "+" not in version
    }


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise NotFetched(said[-1] if said else done.stderr.strip())
