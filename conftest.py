"""Options of the tests. Those of a deeper conftest are unknown when pytest is given a page that exists."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `pytest -m faults` can write, and how often to try what comes at random."""
    parser.addoption(
        "--reliability",
        type=Path,
        metavar="PAGE.md",
        help="with -m faults: write what was measured to this page, and to PAGE.json",
    )
    parser.addoption(
        "--lives", type=int, default=2, metavar="N", help="how many random lives of a line to live (2)"
    )
