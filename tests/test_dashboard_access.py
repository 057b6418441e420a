"""Who gets in, and what is refused: configs, certificates, hosts, origins, sessions, floods."""

import asyncio
import datetime
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml
from dashboard_rig import Browser, Dashboard, add_users, dashboard, run_dashboard, write_dashboard, write_line
from line_rig import COMMANDS, free_address
from patience import PATIENCE_S

from dashboard.access import Session, Sessions, Tries, is_password, secret_of

LINE = "/api/lines/line3"
pytestmark = pytest.mark.slow


def certificate(folder: Path, *, days: int = 30, name: str = "tls") -> tuple[Path, Path]:
    """Make a self-signed certificate of 127.0.0.1 and its key."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "line3.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard with TLS and users, of a line that does not run."""
    folder = tmp_path_factory.mktemp("secure")
    write_line(folder)
    certificate(folder)
    config = write_dashboard(
        folder,
        ["line3.yaml"],
        listen=f"https://127.0.0.1:{free_address().rpartition(':')[2]}",
        certificate="tls.pem",
        key="tls.key",
        hosts=["line3.test"],
    )
    nobody = run_dashboard("--config", config)
    assert nobody.returncode == 2
    assert "there is no user yet" in nobody.stderr
    add_users(folder / "state/labels", anna="change", ben="judge", cem="look")
    with dashboard(config) as served:
        yield served


def browser(served: Dashboard, name: str | None = None) -> Browser:
    made = served.browser(verify=False)
    if name is not None:
        assert made.login(name).status_code == 200
    return made


@pytest.fixture(scope="module")
def inside(served: Dashboard) -> Browser:
    """Somebody who may change everything, for tests that leave the session as it is."""
    return browser(served, "anna")


def test_nothing_is_shown_before_the_login(served: Dashboard) -> None:
    stranger = browser(served)
    assert stranger.session["lines"] == []
    for path in ("/api/lines", LINE, f"{LINE}/verdicts", "/api/users", "/api/changes", "/api/jobs"):
        answer = stranger.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "login_needed"), path


def test_roles(served: Dashboard) -> None:
    cem, ben = browser(served, "cem"), browser(served, "ben")
    assert cem.get(LINE).status_code == 200
    for someone, path in ((cem, "labels"), (ben, "threshold"), (ben, "products/select")):
        answer = someone.post(f"{LINE}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role_needed")
    assert ben.get("/api/users").status_code == 403
    assert cem.post("/api/users", name="cem", role="change").status_code == 403


def test_the_session_cookie_is_for_this_page_alone(served: Dashboard) -> None:
    answer = browser(served).login("anna")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/"))


def test_headers_leave_nothing_to_foreign_pages(served: Dashboard) -> None:
    answer = browser(served).get("/api/session")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "max-age" in answer.headers["strict-transport-security"]


def test_a_forged_origin_a_foreign_host_and_a_missing_token_are_refused(served: Dashboard) -> None:
    anna = browser(served, "anna")
    for headers, status in (
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"X-CSRF-Token": "guessed"}, 403),
    ):
        answer = anna.client.post("/api/logout", json={}, headers=headers)
        assert answer.status_code == status, headers
    picture = anna.client.get(f"{LINE}/cameras/top/preview.jpg", headers={"Sec-Fetch-Site": "cross-site"})
    assert picture.status_code == 403
    assert anna.client.get("/api/session", headers={"Host": "LINE3.test"}).status_code == 200
    form = anna.client.post("/api/logout", content="{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 400
    assert anna.ok("/api/lines")  # still logged in
    assert anna.done("/api/logout") == {}
    assert anna.get("/api/lines").status_code == 401


def test_live_needs_origin_and_login(served: Dashboard) -> None:
    trusting = ssl._create_unverified_context()
    address = served.address.replace("https", "wss") + f"{LINE}/live"

    async def close_code() -> int | None:
        async with websockets.connect(address, origin=served.address, ssl=trusting) as socket:
            await socket.wait_closed()
            return socket.close_code

    assert asyncio.run(close_code()) == 4401

    async def forged(origin: str | None) -> None:
        async with websockets.connect(address, origin=origin, ssl=trusting):
            pass

    for origin in ("https://evil.example", None):
        with pytest.raises(websockets.InvalidStatus, match="403"):
            asyncio.run(forged(origin))


def test_a_page_ends_with_its_session(served: Dashboard) -> None:
    trusting = ssl._create_unverified_context()
    address = served.address.replace("https", "wss") + f"{LINE}/live"
    cem = browser(served, "cem")
    cookie = f"inspectd_session={cem.client.cookies['inspectd_session']}"

    async def close_code() -> int | None:
        async with websockets.connect(
            address, origin=served.address, ssl=trusting, additional_headers={"Cookie": cookie}
        ) as socket:
            assert json.loads(await socket.recv())["type"] == "hello"
            await asyncio.to_thread(cem.done, "/api/logout")
            await asyncio.wait_for(socket.wait_closed(), 20)
            return socket.close_code

    assert asyncio.run(close_code()) == 4401


def test_a_cause_is_acknowledged(inside: Browser) -> None:
    page = inside.until(f"{LINE}/health", lambda page: page["causes"])
    cause = page["causes"][0]
    assert (cause["code"], cause["severity"], cause["acknowledged"]) == ("line_never_heard", "stops", None)
    page = inside.done(f"{LINE}/health/acknowledge", key=cause["key"], note="it is Sunday")
    said = page["causes"][0]["acknowledged"]
    assert (said["by"], said["note"]) == ("anna", "it is Sunday")


def test_guessing_gets_slower_and_users_look_alike(served: Dashboard) -> None:
    stranger = browser(served)
    codes = [stranger.login("dora", f"guess {number}").status_code for number in range(6)]
    assert codes == [401] * 5 + [429]
    waiting = stranger.login("dora", "guess").json()["error"]
    assert waiting["code"] == "too_many"
    assert 0 < waiting["values"]["retry_s"] <= 1


def test_users_come_and_go_and_somebody_can_always_change(served: Dashboard) -> None:
    anna = served.browser(verify=False)
    while anna.login("anna").status_code == 429:  # what the guesses above cost whoever comes from here
        time.sleep(0.1)
    assert anna.post("/api/users", name="eve", role="look", password="short").status_code == 400
    anna.done("/api/users", name="eve", role="look", password="eves secret")
    eve = browser(served, "eve")
    anna.done("/api/users", name="eve", role="judge")
    assert eve.get("/api/lines").status_code == 401  # a new role wants a new login
    assert anna.client.delete("/api/users/eve").status_code == 200
    last = anna.post("/api/users", name="anna", role="look")
    assert (last.status_code, last.json()["error"]["code"]) == (409, "last_change")
    assert anna.client.delete("/api/users/anna").status_code == 409
    log = anna.ok("/api/changes", what="user")
    assert log["intact"] is True
    assert "secret" not in json.dumps(log)


@pytest.mark.parametrize(
    "path",
    [
        "/api/nothing",
        f"{LINE}/verdicts/..%2f..%2fetc%2fpasswd",
        f"{LINE}/verdicts/aa-1/frame.png",
        f"{LINE}/cameras/..%2f..%2fsecret/preview.jpg",
        f"{LINE}/cameras/%3Cscript%3E/preview.jpg",
        "/static/../cli.py",
        "/static/%2e%2e/cli.py",
        "/static/..%2fcli.py",
        "/static//etc/passwd",
        "/api/lines/%00/verdicts",
    ],
)
def test_hostile_addresses_find_nothing(inside: Browser, path: str) -> None:
    answer = inside.client.get(path)
    assert answer.status_code == 404, answer.text
    assert answer.json()["error"]["code"] == "no_such"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("labels", b"[]"),
        ("labels", b"{" * 50_000),
        ("labels", b'{"ids": "aa-1", "label": "defect"}'),
        ("labels", b'{"ids": ["aa-1"], "label": "best"}'),
        ("labels", b'{"ids": ["aa-1"], "label": "defect", "kind": "../../x"}'),
        ("labels", b'{"ids": ["aa-1"], "label": "defect", "more": 1}'),
        ("threshold", b'{"threshold": 1e999, "now": 0, "reason": "because", "product": null}'),
        ("threshold", b'{"threshold": NaN, "now": 0, "reason": "because", "product": null}'),
        ("threshold", b'{"threshold": 1, "now": 0, "reason": "\\u0007\\u0007\\u0007", "product": null}'),
        ("exports", b'{"format": "exe"}'),
        ("health/acknowledge", b'{"key": 5}'),
    ],
)
def test_hostile_bodies_are_refused(inside: Browser, path: str, content: bytes) -> None:
    answer = inside.client.post(
        f"{LINE}/{path}", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_body"


def test_a_long_body_is_refused(inside: Browser) -> None:
    answer = inside.client.post(f"{LINE}/labels", json={"note": "x" * 200_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_thousand_connections_do_not_keep_others_out(served: Dashboard) -> None:
    host, port = served.address.removeprefix("https://").split(":")
    sockets = []
    try:
        for _ in range(1000):
            connected = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            sockets.append(connected)
        anna = browser(served, "anna")
        assert anna.ok("/api/lines")["lines"][0]["line"] == "line3"
        assert served.memory_mb() < 250
    finally:
        for connected in sockets:
            connected.close()


def test_requests_that_break_http_leave_no_traceback(folder: Path) -> None:
    with dashboard(write_dashboard(folder, ["line3.yaml"])) as served:
        host = served.address.removeprefix("http://").rstrip("/")
        name, _, port = host.partition(":")
        served.browser()
        for rest in ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", "Content-Length: x\r\n\r\n", "\0\r\n\r\n"):
            with socket.create_connection((name, int(port)), timeout=PATIENCE_S) as connected:
                connected.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\n{rest}".encode())
                answer = connected.recv(4096)
                assert b" 400 " in answer or b" 403 " in answer
        assert served.browser().ok("/api/lines")
        _, said = served.stop()
        assert "Traceback" not in said, said


def test_sessions_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    token, session = sessions.begin("anna")
    assert sessions.find(token) is session
    session.seen_s -= 9 * 3600
    assert sessions.find(token) is None
    token, session = sessions.begin("anna")
    session.began_s -= 25 * 3600
    assert sessions.find(token) is None
    assert sessions.find("guess") is None
    assert not Session("ben").expired


def test_passwords_are_salted_and_tries_are_forgiven() -> None:
    secrets = {secret_of("open sesame") for _ in range(2)}
    assert len(secrets) == 2
    assert all(is_password("open sesame", secret) for secret in secrets)
    assert not is_password("open sesamE", min(secrets))
    assert not is_password("", None)
    tries = Tries()
    for _ in range(7):
        tries.wrong("anna")
    assert 3 < tries.wait_s("anna") <= 4
    assert tries.wait_s("ben") == 0
    tries.right("anna")
    assert tries.wait_s("anna") == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_line(tmp_path)
    return tmp_path


WRONG_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"lines": []}, "lines: found no list, expected a list"),
    ({"lines": ["missing.yaml"]}, "dashboard.yaml: lines.0: {folder}/missing.yaml: cannot be read: No such"),
    ({"lines": ["line3.yaml", "line3.yaml"]}, "lines.1: line line3 is named twice"),
    ({"listen": "127.0.0.1"}, "listen: found '127.0.0.1', expected http://HOST:PORT"),
    ({"listen": "http://0.0.0.0:8321"}, "which others can reach; expected https://"),
    ({"listen": "https://127.0.0.1:8321"}, "expected https:// with the keys certificate and key"),
    ({"listn": "x"}, "listn: unknown key"),
    ({"shifts": ["6 am"]}, "shifts: found '6 am', expected times of the day"),
    ({"time_zone": "Mars/Olympus"}, "time_zone: found 'Mars/Olympus', expected a name"),
    ({"kinds": ["../up"]}, "kinds: found '../up', expected names"),
    ({"keep_days": 0}, "keep_days: found 0, expected a number from 1"),
    ({"most_verdicts": {"a": 1}}, "found keys and values, expected a number from 1000 to 100000000"),
]


@pytest.mark.parametrize(("keys", "said"), WRONG_CONFIGS, ids=[said[:20] for _, said in WRONG_CONFIGS])
def test_a_wrong_config_is_one_line(folder: Path, keys: dict[str, Any], said: str) -> None:
    from dashboard.config import load_config
    from foundation.errors import InputError

    config = write_dashboard(folder, keys.pop("lines", ["line3.yaml"]), **keys)
    with pytest.raises(InputError) as caught:
        load_config(config)
    assert said.replace("{folder}", str(folder)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_and_a_wrong_config_are_one_line(folder: Path) -> None:
    config = write_dashboard(folder, ["line3.yaml"])
    listen = yaml.safe_load(config.read_text())["listen"]
    host, port = listen.removeprefix("http://").split(":")
    with socket.create_server((host, int(port))):
        done = run_dashboard("--config", config)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.endswith(f"listen: {listen}/ is taken by another program")
    done = run_dashboard("--config", folder / "missing.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert run_dashboard().returncode == 2


def test_certificates_that_are_of_no_use(folder: Path) -> None:
    from dashboard.config import load_config
    from dashboard.serve import check
    from foundation.errors import InputError

    pem, key = certificate(folder)
    old, old_key = certificate(folder, days=-1, name="old")
    (folder / "text.pem").write_text("hello")

    def said(pem: Path, key: Path) -> str:
        config = write_dashboard(
            folder, ["line3.yaml"], listen="https://127.0.0.1:1", certificate=str(pem), key=str(key)
        )
        with pytest.raises(InputError) as caught:
            check(load_config(config))
        return str(caught.value)

    assert "missing.pem cannot be read: No such file or directory" in said(folder / "missing.pem", key)
    assert "expired on" in said(old, old_key)
    assert "holds no certificate in PEM" in said(folder / "text.pem", key)
    assert "is not the key of" in said(pem, old_key)


def test_a_damaged_label_file_leaves_a_page_that_only_shows(folder: Path) -> None:
    config = write_dashboard(folder, ["line3.yaml"])
    (folder / "state").mkdir()
    for name in ("labels", "line3.rollup"):
        (folder / "state" / name).write_bytes(b"no database at all" * 100)
    with dashboard(config) as served:
        someone = served.browser()
        assert someone.session["role"] == "look"  # nobody knows whether there were users
        state = someone.ok(LINE)
        troubles = [trouble["code"] for trouble in state["trouble"]]
        assert "labels_failed" in troubles
        assert "rollup_failed" not in troubles  # a copy, which was begun anew
        assert (folder / "state/line3.rollup.damaged").exists()
        assert someone.post(f"{LINE}/labels").status_code == 403
        assert served.stop()[0] == 0


def test_a_journal_of_another_line_is_told(folder: Path) -> None:
    from daemon.journal.database import open_for_writing

    (folder / "line3.journal").touch()
    open_for_writing(folder / "line3.journal", "line4").close()
    with dashboard(write_dashboard(folder, ["line3.yaml"])) as served:
        state = served.browser().until(
            LINE, lambda state: "journal_of_another_line" in [entry["code"] for entry in state["trouble"]]
        )
    detail = next(entry for entry in state["trouble"] if entry["code"] == "journal_of_another_line")["detail"]
    assert "is the journal of line line4; expected one of line line3" in detail


def test_the_extra_that_is_missing_is_one_line(folder: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'starlette' else real(name, *a)\n"
        "from dashboard.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--line", str(folder / "line3.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "inspectd-dashboard: starlette: not installed here; expected the extra dashboard: "
        "pip install 'inspectd[dashboard]'\n"
    )


def test_help_is_quick_and_imports_little() -> None:
    import subprocess
    import sys

    code = "import sys; from dashboard.cli import command_line; command_line(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert os.access(COMMANDS / "inspectd-dashboard", os.X_OK)
