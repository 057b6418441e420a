"""``lint-imports`` finds an import that goes up, between the packages and between the daemon's rooms."""

import shutil
import subprocess
from pathlib import Path

import pytest
from line_rig import COMMANDS, REPOSITORY

PACKAGES = (
    *("foundation", "verdicts", "pictures", "engine_runtime"),
    *("engine_build", "calibration", "models", "daemon", "lines", "dashboard", "plant", "fleet"),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, in which an import can be planted."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    for package in PACKAGES:
        for file in (REPOSITORY / package).rglob("*.py"):
            copy = folder / file.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    return folder


def lint(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [COMMANDS / "lint-imports", "--no-cache"], cwd=tree, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    code, said = lint(tree)
    assert code == 0, said


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("daemon/host/cores.py", "daemon.config"),
        ("daemon/capture/counter.py", "daemon.judging.ledger"),
        ("daemon/judging/product.py", "daemon.config"),
        ("daemon/control/positions.py", "daemon.delivery.publisher"),
        ("daemon/reload.py", "daemon.line"),
        ("pictures/frames.py", "engine_runtime.manifest"),
        ("verdicts/gaps.py", "numpy"),
        ("dashboard/listening.py", "daemon.line"),
        ("daemon/line.py", "dashboard.rollup"),
        ("plant/link.py", "daemon.line"),
        ("plant/metrics.py", "dashboard.records"),
    ],
)
def test_an_import_that_goes_up_is_found(tree: Path, module: str, imports: str) -> None:
    file = tree / module
    whole = file.read_text()
    try:
        file.write_text(f"{whole}\n\ndef _planted() -> None:\n    import {imports}\n")
        code, said = lint(tree)
    finally:
        file.write_text(whole)
    assert code == 1, said
    assert "BROKEN" in said
    planted = module.removesuffix(".py").replace("/", ".")
    assert f"{planted} -> {imports}" in said, said
