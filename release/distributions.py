"""Wheels and source distributions of ``inspectd`` and ``inspectd-verdicts``."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]

_FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "systemd", "configs", "distributions")
_LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")


def project(folder: Path = REPOSITORY) -> dict[str, Any]:
    """Read the ``[project]`` table of ``inspectd``, or of the project in another folder."""
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return table


def copy_sources(target: Path) -> None:
    """Copy what the distributions are built from: building leaves things behind."""
    target.mkdir(parents=True)
    packages = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for pattern in (*_FILES, "verdicts", *packages["find"]["include"]):
        for path in REPOSITORY.glob(pattern):
            if path.is_dir():
                shutil.copytree(
                    path, target / path.name, symlinks=True, ignore=_LEFTOVERS, dirs_exist_ok=True
                )
            else:
                shutil.copy2(path, target / path.name)


def build_distributions(sources: Path, out: Path, *, kinds: tuple[str, ...] = ("wheel", "sdist")) -> None:
    """Build both from a copy of the sources, without the network."""
    for folder in (sources / "distributions/verdicts", sources):
        command = [sys.executable, "-m", "build", "--no-isolation", *(f"--{kind}" for kind in kinds)]
        done = subprocess.run(
            [*command, "--outdir", out, folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"dist: {folder}: not built:\n{done.stdout}")
