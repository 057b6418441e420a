"""The journal of a running daemon: nothing is published that is not in it, whatever happens."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import COMMANDS, free_address, part_image, running, write_config
from patience import PATIENCE_S

from daemon.capture.counter import read_counter
from daemon.journal.reader import JournalReader
from verdicts import Verdict
from verdicts.verdict import decode_verdict

BELT = {"source": "simulated://?width=64&height=64&cached=4", "fps": 400}


def journaled(folder: Path) -> list[Verdict]:
    with JournalReader(folder / "line3.journal") as reader:
        return [decode_verdict(payload) for _, payload in reader.after(0, 1_000_000)]


def config_with_journal(folder: Path, cameras: dict[str, Any], **keys: Any) -> Path:
    return write_config(folder, cameras, journal={"file": "line3.journal"}, **keys)


def test_every_verdict_is_in_the_journal_as_it_was_published(line_folder: Path) -> None:
    for index in range(30):
        part_image(line_folder / f"parts/{index:02d}.png", bright=index % 3 == 0)
    config = config_with_journal(line_folder, {"top": {"source": "parts"}})
    with running(config) as line:
        line.until_end()
    assert len(line.verdicts) == 30
    assert journaled(line_folder) == line.verdicts
    assert line.health.journal is not None
    assert line.health.journal.state == "ok"
    with JournalReader(line_folder / "line3.journal") as reader:
        kinds = [row.kind for row in reader.rows(0, 1000)]
    assert [kind for kind in kinds if kind not in {"verdict", "created"}] == ["start", "stop"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_killed_daemon_has_journaled_what_it_published_and_the_next_start_closes_the_rest(
    line_folder: Path, number: signal.Signals
) -> None:
    cameras = dict.fromkeys(("top", "side"), BELT)
    config = config_with_journal(line_folder, cameras, publish=free_address())
    with running(config) as first:
        first.until(lambda line: len(line.verdicts) > 300)
        # Stopped, while cameras go on capturing what this daemon will never judge.
        first.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, first.process.pid, os.WSTOPPED | os.WNOWAIT)
        give_up = time.monotonic() + PATIENCE_S
        captured = counted(line_folder)
        while counted(line_folder) < captured + 40:
            assert time.monotonic() < give_up
        first.process.send_signal(number)
        first.process.send_signal(signal.SIGCONT)
        first.until_end()
    written = journaled(line_folder)
    published = {(verdict.boot, verdict.seq): verdict for verdict in first.verdicts}
    assert published == {key: v for v in written if (key := (v.boot, v.seq)) in published}

    with running(config) as second:
        second.until(lambda line: len(line.verdicts) > 50)
        second.stop()
    boot = first.verdicts[0].boot
    everything = [verdict for verdict in journaled(line_folder) if verdict.boot == boot]
    assert [verdict.seq for verdict in everything] == list(range(1, len(everything) + 1))
    for camera in cameras:
        frames = sorted(verdict.frame for verdict in everything if verdict.camera == camera)
        assert frames == list(range(1, len(frames) + 1))
    late = everything[len(written) :]
    assert {(verdict.decision, verdict.reason) for verdict in late} <= {("fault", "shutdown")}
    assert len(late) >= 30  # as it goes on, it may give some verdicts before it dies
    audit(line_folder)


def counted(folder: Path) -> int:
    """Read how many frames all cameras have captured, from the files in which they count them."""
    return sum(count[1] for file in folder.glob("*.captured") if (count := read_counter(file)))


def audit(folder: Path) -> None:
    done = subprocess.run(
        [COMMANDS / "inspectctl", "audit", folder / "line3.journal"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("policy", ["fault", "continue"])
def test_a_journal_that_cannot_be_written_changes_health_and_follows_the_policy(
    line_folder: Path, small_disk: Path, policy: str
) -> None:
    config = config_with_journal(line_folder, {"top": BELT}, on_journal_error=policy)
    content = yaml.safe_load(config.read_text())
    content["journal"] = {"file": str(small_disk / "line3.journal"), "max_mb": 1000}
    config.write_text(yaml.safe_dump(content))
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 100)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                pass
        line.until(lambda line: line.health.journal is not None and line.health.journal.state == "failed")
        assert line.health.state == "degraded"
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 100)
        filler.unlink()
        line.until(lambda line: line.health.journal is not None and line.health.journal.state == "ok")
        line.until(lambda line: line.health.state == "running")
        line.stop()
    found = {(verdict.decision, verdict.reason) for verdict in line.verdicts}
    assert (("fault", "journal") in found) == (policy == "fault")
    with JournalReader(small_disk / "line3.journal") as reader:
        written = [decode_verdict(payload) for _, payload in reader.after(0, 1_000_000)]
    # Also what could not be written at its time stands there as it was published.
    assert written == line.verdicts
