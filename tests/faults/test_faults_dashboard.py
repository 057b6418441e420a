"""The dashboard beside a line is killed, stopped, flooded and lied to: the line does not notice."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
from dashboard_rig import Browser, Dashboard, add_users, dashboard, write_dashboard
from patience import PATIENCE_S

from faults.preload import built
from faults.test_faults_journal import fill
from faults.test_faults_resources import rejects
from faults.trial import BELT, Trial

LINE = "/api/lines/line3"
EVERYTHING = {"decision": "pass,reject,fault"}


@contextlib.contextmanager
def watched(trial: Trial, state: Path | None = None, **line: object) -> Iterator[tuple[Dashboard, Browser]]:
    """A line with a dashboard that has copied some of its verdicts."""
    trial.start({"top": BELT}, **line)
    config = write_dashboard(trial.folder, ["line3.yaml"], state=str(state or "state"))
    with dashboard(config) as served:
        browser = served.browser()
        browser.until(f"{LINE}/verdicts", lambda found: found["total"] > 20, **EVERYTHING)
        yield served, browser


def all_there(trial: Trial, browser: Browser) -> None:
    """See that the dashboard has every verdict that was published until now, and each once."""
    last = trial.verdicts[-1].seq
    found = browser.until(
        f"{LINE}/verdicts",
        lambda found: found["items"] and int(found["items"][0]["id"].rpartition("-")[2]) >= last,
        **EVERYTHING,
    )
    newest = int(found["items"][0]["id"].rpartition("-")[2])
    assert found["total"] == newest


@pytest.mark.faults("Dashboard", "killed (SIGKILL) with open pages, started again")
def test_dashboard_killed(trial: Trial) -> None:
    with watched(trial) as (served, _):
        trial.inject()
        served.process.send_signal(signal.SIGKILL)
        trial.not_told()
        trial.uninterrupted()
    with dashboard(served.config) as again:
        all_there(trial, again.browser())
    trial.finish()


@pytest.mark.faults("Dashboard", "stopped for good (SIGSTOP)")
def test_dashboard_stopped(trial: Trial) -> None:
    with watched(trial) as (served, browser):
        trial.inject()
        served.process.send_signal(signal.SIGSTOP)
        trial.not_told()
        trial.uninterrupted(verdicts=300)
        served.process.send_signal(signal.SIGCONT)
        all_there(trial, browser)
    trial.finish()


@pytest.mark.faults("Dashboard", "its disk full")
def test_dashboard_disk_full(trial: Trial, small_disk: Path) -> None:
    with watched(trial, small_disk / "state") as (_, browser):
        trial.inject()
        filler = fill(small_disk)
        trial.not_told()
        trial.uninterrupted(verdicts=300)
        browser.until(
            LINE, lambda state: "rollup_failed" in [trouble["code"] for trouble in state["trouble"]]
        )
        assert browser.ok(LINE)["state"]["code"] == "running"  # what is live goes on
        filler.unlink()
        all_there(trial, browser)
    trial.finish()


@pytest.mark.faults("Dashboard", "its clock stepped by an hour")
def test_dashboard_clock_stepped(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = trial.folder / "offset"
    offset.write_text("0")
    trial.start({"top": BELT})
    monkeypatch.setenv("LD_PRELOAD", built("wall_clock.c", trial.folder))
    monkeypatch.setenv("WALL_CLOCK_OFFSET", str(offset))
    with dashboard(write_dashboard(trial.folder, ["line3.yaml"])) as served:
        monkeypatch.undo()
        browser = served.browser()
        browser.until(f"{LINE}/verdicts", lambda found: found["total"] > 20, **EVERYTHING)
        trial.inject()
        for seconds in (3600, -3600):
            offset.write_text(str(seconds))
            trial.uninterrupted()
            state = browser.until(LINE, lambda state: state["state"]["code"] == "running")
            assert sum(state["counts"]["minute"].values()) > 50
        trial.not_told()
        all_there(trial, browser)
    trial.finish()


@pytest.mark.faults("Dashboard", "a thousand connections, and pages that do not read")
def test_dashboard_flooded(trial: Trial) -> None:
    with watched(trial) as (served, browser):
        host, port = served.address.removeprefix("http://").split(":")
        trial.inject()
        with contextlib.ExitStack() as stack:
            for _ in range(1000):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
            request = (
                f"GET {LINE}/live HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {served.address}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            for _ in range(50):
                page = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
                page.sendall(request.encode())
            trial.not_told()
            trial.uninterrupted(verdicts=300)
            assert browser.ok(LINE)["state"]["code"] == "running"
        all_there(trial, browser)
        assert served.memory_mb() < 250
    trial.finish()


@pytest.mark.faults("Dashboard", "forged Origin, expired session, names with script tags")
def test_dashboard_lied_to(trial: Trial) -> None:
    trial.start({"top": rejects(trial)}, archive={"folder": "rejects"})
    config = write_dashboard(trial.folder, ["line3.yaml"], kinds=["<script>alert(1)"])
    add_users(trial.folder / "state/labels", anna="change")
    with dashboard(config) as served:
        anna = served.browser()
        anna.login("anna")
        found = anna.until(f"{LINE}/verdicts", lambda found: found["total"] > 2)
        name = found["items"][0]["id"]
        trial.inject()
        body = {"ids": [name], "label": "defect", "kind": "<script>alert(1)"}
        answer = anna.client.post(f"{LINE}/labels", json=body, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
        answer = anna.client.post(f"{LINE}/labels", json=body, headers={"Cookie": "inspectd_session=old"})
        assert answer.status_code == 401
        assert anna.done(f"{LINE}/labels", **body)["labelled"][0]["kind"] == "<script>alert(1)"
        hostile = anna.client.get(f"{LINE}/cameras/%3Cscript%3Ealert(1)%3C%2Fscript%3E/preview.jpg")
        assert hostile.status_code == 404
        assert hostile.headers["content-type"] == "application/json"

        async def forged() -> None:
            async with websockets.connect(
                served.address.replace("http", "ws") + f"{LINE}/live", origin="https://evil.example"
            ):
                pass

        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(forged())
        trial.not_told()
        trial.uninterrupted()
        all_there(trial, anna)
    trial.finish()
