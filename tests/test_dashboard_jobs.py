"""What a page shows of a command that runs for it."""

import sys
from pathlib import Path

import pytest

from dashboard.jobs import Job, run_command
from foundation.errors import WorkFailed


class WatchedJob(Job):
    """Remembers what it showed."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "text":
            shown = (getattr(self, "done", 0), getattr(self, "total", 0), self.text)
            vars(self).setdefault("shown", []).append(shown)


def run(tmp_path: Path, script: str) -> WatchedJob:
    job = WatchedJob("j1", "train", "line3", "anna")
    vars(job)["shown"] = []
    run_command(job, [sys.executable, "-c", script], tmp_path)
    return job


def test_a_bar_that_only_a_terminal_gets_is_progress(tmp_path: Path) -> None:
    job = run(
        tmp_path,
        """if True:
        from tqdm import tqdm
        print("comparing methods")
        for _ in tqdm(range(4), desc="measuring", leave=False, disable=None, mininterval=0): pass
        print("wrote line3.engine")""",
    )
    shown = vars(job)["shown"]
    assert shown[0] == (0, 0, "comparing methods")
    assert shown[-1] == (100, 100, "wrote line3.engine")
    bars = [(done, total) for done, total, text in shown if text == "measuring"]
    assert bars == [(done, 100) for done in (0, 25, 50, 75, 100)]


def test_what_a_failed_command_said_last_is_why(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"^good/ holds 3 images$"):
        run(tmp_path, "import sys; print('reading'); sys.exit('good/ holds 3 images')")
