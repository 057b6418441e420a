"""The docs build as a site: no dead link, no page left out, the reference drawn from the docstrings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from line_rig import REPOSITORY

pytest.importorskip("mkdocs", reason="the docs site needs MkDocs: pip install 'inspectd[dev]'")


def test_the_site_builds_without_a_warning_and_asks_nobody_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site/reference/verdicts/index.html").read_text()
    assert "LineSilent" in reference and "silence_s" in reference
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    assert not any(ask in page for page in pages for ask in ('src="http', 'rel="stylesheet" href="http'))
