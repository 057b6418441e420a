from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.reliability import Rows
from faults.trial import Row, Trial

ROWS = pytest.StashKey[Rows]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = Rows()


@pytest.fixture
def trial(request: pytest.FixtureRequest, line_folder: Path) -> Iterator[Trial]:
    """A line whose fault makes a row of the table; its group and name stand in the test's marker."""
    marker = request.node.get_closest_marker("faults")
    assert marker is not None
    group, fault = marker.args
    trial = Trial(line_folder, Row(group, fault))
    yield trial
    trial.close()
    if trial.finished:
        for number, row in enumerate(trial.rows):
            request.config.stash[ROWS].add(f"{request.node.nodeid} {number}", row)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()  # type: ignore[attr-defined]
    marker = item.get_closest_marker("faults")
    if marker is None:
        return
    if report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        group, fault = marker.args
        item.config.stash[ROWS].add(item.nodeid, Row(group, fault, not_run=reason))
    elif report.failed:
        item.config.stash[ROWS].failed = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--reliability")
    rows = session.config.stash[ROWS]
    if page is None or not rows:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    if rows.failed:
        reporter.write_line(f"{page}: not written, as tests failed")
    else:
        rows.write(page)
        reporter.write_line(f"{page}: written")
