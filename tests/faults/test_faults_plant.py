"""The plant's side of a line is killed, its peers are away: the line does not notice, and nothing is lost."""

import signal
from typing import Any

import pytest
from plant_rig import plant, until, write_plant
from test_plant_alarms import Web

from faults.trial import BELT, Trial

pytest.importorskip("prometheus_client", reason="needs the extra plant: pip install 'inspectd[plant]'")
pytestmark = pytest.mark.slow


def posted(web: Web) -> list[dict[str, Any]]:
    return [verdict for body in web.bodies() for verdict in body["verdicts"]]


def all_there(trial: Trial, web: Web, first: int) -> None:
    """See that every verdict from one on was posted in order, each once or marked."""
    last = trial.verdicts[-1].seq
    until(lambda: any(verdict["seq"] >= last for verdict in posted(web)[-200:]))
    due = first
    for verdict in posted(web):
        assert verdict["seq"] <= due and (verdict["seq"] == due or verdict["repeated"]), verdict["seq"]
        due = max(due, verdict["seq"] + 1)


def begin(trial: Trial, web: Web) -> Any:
    trial.start({"top": BELT})
    webhook = {"url": f"http://127.0.0.1:{web.port}/", "decisions": ["pass", "reject", "fault"]}
    return write_plant(trial.folder, webhook=webhook)


@pytest.mark.faults("Plant", "inspectd-plant killed (SIGKILL), started again")
def test_plant_killed(trial: Trial) -> None:
    web = Web()
    config = begin(trial, web)
    with plant(config) as running:
        until(lambda: len(posted(web)) > 20)
        trial.inject()
        running.process.send_signal(signal.SIGKILL)
        trial.not_told()
        trial.uninterrupted()
    with plant(config):
        all_there(trial, web, posted(web)[0]["seq"])
    trial.finish()


@pytest.mark.faults("Plant", "the other end away, then answering errors")
def test_peer_away(trial: Trial) -> None:
    web = Web()
    with plant(begin(trial, web)) as running:
        until(lambda: len(posted(web)) > 20)
        trial.inject()
        web.answer = 503
        running.until("webhook", lambda output: output["state"] == "down")
        trial.not_told()
        trial.uninterrupted(verdicts=300)
        memory = running.memory_mb()
        trial.uninterrupted(verdicts=300)
        assert running.memory_mb() < memory + 5
        web.answer = 200
        all_there(trial, web, posted(web)[0]["seq"])
    trial.finish()


@pytest.mark.faults("Plant", "inspectd killed (SIGKILL) while a gate is on: everything is thrown out")
def test_line_killed_under_a_gate(trial: Trial) -> None:
    trial.start({"top": BELT})
    gate = {"camera": "top", "after": "500 ms", "window": "4 ms", "output": {"simulated": "gate.log"}}
    with plant(write_plant(trial.folder, gates={"reject": gate}, silence="1 s")) as running:
        state = lambda: running.health()["gates"]["reject"]["state"]  # noqa: E731
        until(lambda: state() == "trusted")
        trial.inject()
        trial.killed()
        until(lambda: state() == "ejecting")
        assert (trial.folder / "gate.log").read_text().split()[-1] == "0"
        trial.not_told()
        trial.launch(None)
        until(lambda: state() == "trusted")
    trial.finish(possible=[("top", "shutdown"), ("top", "camera"), ("top", "deadline")])
