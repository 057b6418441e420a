"""Metrics as Prometheus' own tools see them, and a real Prometheus that scrapes a real line."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard_rig import write_line
from line_rig import REPOSITORY
from patience import PATIENCE_S
from plant_rig import Plant, complaint, free_port, plant, run_plant, until, write_plant

pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'inspectd[plant]'")
PROMETHEUS = REPOSITORY / "configs/prometheus"
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


@needs_prometheus
def test_the_alert_rules_do_what_they_say() -> None:
    for command in (["check", "rules", "inspectd.rules.yaml"], ["test", "rules", "inspectd.rules.test.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_where_to_read_on_and_that_is_written() -> None:
    [group] = yaml.safe_load((PROMETHEUS / "inspectd.rules.yaml").read_text())["groups"]
    page = (REPOSITORY / "docs/alerts.md").read_text()
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert f"## {rule['alert']}\n" in page, rule["alert"]


def test_the_schema_is_the_one_that_the_command_prints() -> None:
    assert run_plant("--schema").stdout == (REPOSITORY / "configs/plant.schema.json").read_text()


def test_who_may_ask_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "line3.yaml").write_text("line: line3\npublish: tcp://127.0.0.1:5560\n")
    port = free_port()
    for metrics, wanted in (
        ({"listen": f"http://0.0.0.0:{port}"}, "which others can reach; expected the key networks"),
        ({"listen": "https://127.0.0.1:1"}, "expected http:// with an address and a port"),
        ({"networks": ["10.1.0.0/33"]}, "expected a network such as 10.1.0.0/16"),
        ({"netwroks": []}, "metrics.netwroks: unknown key; did you mean networks?"),
    ):
        assert wanted in complaint(write_plant(tmp_path, metrics=metrics))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        config = write_plant(tmp_path, metrics={"listen": f"http://127.0.0.1:{port}"})
        done = run_plant("--config", config)
    assert done.returncode == 1
    assert done.stderr == (
        f"inspectd-plant: {config}: metrics.listen: http://127.0.0.1:{port} is taken by another program\n"
    )


def ask(port: int, query: str) -> list[Any]:
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            content = json.load(answer)
    except OSError:
        return []
    found: list[Any] = content["data"]["result"]
    return [entry for entry in found if entry["value"][1] != "NaN"]


@needs_prometheus
@pytest.mark.slow
def test_a_real_prometheus_answers_every_panel_and_counters_never_fall(line_folder: Path) -> None:
    line = write_line(line_folder)
    gate = {"camera": "top", "after": "300 ms", "window": "10 ms", "output": {"simulated": "gate.log"}}
    port = free_port()
    webhook = {"url": f"http://127.0.0.1:{free_port()}/"}
    config = write_plant(line_folder, gates={"reject": gate}, webhook=webhook)
    (line_folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "inspectd",
                        "static_configs": [
                            {
                                "targets": [
                                    yaml.safe_load(config.read_text())["metrics"]["listen"].split("//")[1]
                                ]
                            }
                        ],
                    }
                ],
                "rule_files": [str(PROMETHEUS / "inspectd.rules.yaml")],
            }
        )
    )
    from line_rig import COMMANDS

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen([COMMANDS / "inspectd", "--config", line], stderr=subprocess.DEVNULL)

    daemon = begin()
    prometheus = subprocess.Popen(
        ["prometheus", "--config.file", line_folder / "prometheus.yml", "--storage.tsdb.path",
         line_folder / "tsdb", "--web.listen-address", f"127.0.0.1:{port}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with plant(config) as running:
            until(lambda: running.health()["gates"]["reject"]["passed"] > 20)
            metrics = running.get("/metrics")[1]
            checked = subprocess.run(
                ["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
            )
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
            assert not re.search(r'\bpid="', metrics)

            dashboard = json.loads((REPOSITORY / "configs/grafana/inspectd.json").read_text())
            queries = {
                (panel["title"], target["expr"].replace("$line", ".*").replace("$__rate_interval", "10s"))
                for panel in dashboard["panels"]
                for target in panel["targets"]
            }
            assert len(queries) > 20
            for title, query in sorted(queries):
                until(partial(ask, port, query), what=f"{title}: {query}")

            def total() -> float:
                found = re.findall(r'^inspectd_verdicts_total\{.*"\} (.*)$', running.get("/metrics")[1], re.M)
                return sum(map(float, found))

            before = total()
            daemon.kill()
            daemon.wait()
            assert total() >= before
            daemon = begin()
            until(lambda: 'inspectd_restarts_total{line="line3"} 1.0' in running.get("/metrics")[1])
            again = total()
            assert again >= before
            until(lambda: total() > again + 20)
            until(lambda: not ask(port, "resets(inspectd_verdicts_total[1m]) > 0"))
            assert not ask(port, "resets(inspectd_verdicts_total[1m]) > 0")
            until(lambda: ask(port, 'ALERTS{alertname="InspectdRestarted"}'))
    finally:
        for process in (daemon, prometheus):
            process.send_signal(signal.SIGTERM)
        daemon.wait()
        prometheus.wait()


def answers(running: Plant) -> bool:
    with contextlib.suppress(OSError):  # its places are free only when it has noticed who has gone
        return running.get("/metrics")[0] == 200
    return False


def test_a_client_that_does_not_read_or_hangs_on_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "line3.yaml").write_text("line: line3\npublish: tcp://127.0.0.1:5560\n")
    config = write_plant(tmp_path)
    with plant(config) as running:
        port = int(running.address.rpartition(":")[2])
        hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
        assert running.get("/healthz")[0] == 200
        for connection in hanging:  # none had to be given up for it
            with pytest.raises(BlockingIOError):
                connection.recv(1, socket.MSG_DONTWAIT)
        threads = running.threads()
        hanging += [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        time.sleep(0.2)
        assert running.threads() <= threads + 16
        for connection in hanging:
            connection.close()
        until(partial(answers, running))
        assert running.get("/secret")[0] == 404
        post = urllib.request.Request(running.address + "/healthz", data=b"x")
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(post, timeout=PATIENCE_S)
