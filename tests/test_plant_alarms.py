"""Webhook and alarms, against servers of Python's own: signed, in order, once for each cause."""

import contextlib
import hashlib
import hmac
import json
import select
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from delivery_line import DeliveryLine
from patience import PATIENCE_S
from plant_rig import complaint, free_port, plant, until, write_plant

from plant.alarms.alarms import Alarms, Message
from plant.alarms.channels import Channel, MailWay, open_ways
from plant.alarms.config import AlarmsConfig, MailConfig


class Web:
    """A web server that takes what is posted, or answers what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer = 200
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if web.answer < 300:
                    web.got.append((dict(self.headers), body))
                self.send_response(web.answer)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.port = free_port()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in list(self.got)]


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


class MailServer:
    """Speaks as much SMTP as a client needs, and keeps what it is given."""

    def __init__(self, port: int = 0, good_bye: bytes = b"221 bye\r\n") -> None:
        import socketserver

        self.mails: list[str] = []
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                while line := self.rfile.readline():
                    word = line.split()[0].upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        text = b""
                        while not text.endswith(b"\r\n.\r\n"):
                            text += self.rfile.readline()
                        server.mails.append(text.decode())
                    self.wfile.write(good_bye if word == b"QUIT" else b"250 ok\r\n")

        self.port = port or free_port()
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def says(text: str, output: dict[str, Any]) -> bool:
    return text in (output["error"] or "")


def of_line(web: Web) -> list[str]:
    return [message["state"] for message in web.bodies() if message["cause"] == "line"]


@pytest.mark.slow
def test_verdicts_and_alarms_are_posted_signed_and_a_cause_is_told_once(
    line: DeliveryLine, web: Web, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("schlüssel\n")
    (tmp_path / "secret").chmod(0o600)
    alarms_web, mail = Web(), MailServer()
    config = write_plant(
        tmp_path,
        line,
        webhook={"url": f"http://127.0.0.1:{web.port}/hook?token=abc", "secret": "secret"},
        silence="1 s",
        alarms={
            "after": "300 ms",
            "ok_after": "500 ms",
            "webhook": {"url": f"http://127.0.0.1:{alarms_web.port}/"},
            "mail": {
                "server": f"smtp://127.0.0.1:{mail.port}",
                "sender": "line3@example.org",
                "to": ["anna@example.org", "ben@example.org"],
            },
        },
    )
    with plant(config) as running:
        running.until_connected("webhook")
        line.judge(1, 5)
        line.judge(6, 7, decision="reject", score=0.9)
        until(lambda: sum(len(body["verdicts"]) for body in web.bodies()) == 2)
        headers, body = web.got[0]
        expected = hmac.new("schlüssel".encode(), f"{headers['X-Inspectd-Timestamp']}.".encode() + body,
                            hashlib.sha256).hexdigest()  # fmt: skip
        assert headers["X-Inspectd-Signature"] == f"sha256={expected}"
        for seq, answer in enumerate((500, 302, 404), 8):
            web.answer = answer
            line.judge(seq, seq, decision="fault")
            down = running.until("webhook", partial(says, f"answers {answer}"))
            assert "abc" not in down["error"] and "token=***" in down["error"]
        web.answer = 204
        until(lambda: sum(len(body["verdicts"]) for body in web.bodies()) == 5)
        sent = [verdict["seq"] for body in web.bodies() for verdict in body["verdicts"]]
        assert sent == [6, 7, 8, 9, 10]
        running.until_connected("webhook")

        # On a busy machine the line may have been silent for a moment before.
        before = len(of_line(alarms_web))
        line.kill()
        until(lambda: of_line(alarms_web)[before:] == ["alarm"], what=alarms_web.bodies)
        line.start()
        until(lambda: of_line(alarms_web)[before:] == ["alarm", "ok"], what=alarms_web.bodies)
        until(lambda: len(mail.mails) == len(alarms_web.bodies()), what=lambda: mail.mails)
    assert "To: anna@example.org, ben@example.org" in mail.mails[-1]
    assert any("[inspectd line3] ok again: line3 is silent" in " ".join(one.split()) for one in mail.mails)
    assert "Traceback" not in running.log


def test_a_cause_that_comes_and_goes_is_told_once_and_remembered(tmp_path: Path) -> None:
    told: list[Message] = []

    def alarms() -> Alarms:
        return Alarms("line3", tmp_path / "alarms.json", after_s=5, ok_after_s=30, tell=told.append)

    first = alarms()
    for second in range(4):
        first.look(second, [("line", "silent")])
    first.look(4, [])
    assert not told  # it was too short
    for second in range(10, 20):
        first.look(second, [("line", "silent"), ("output mqtt", "gone")])
    assert [(message.cause, message.state) for message in told] == [
        ("line", "alarm"),
        ("output mqtt", "alarm"),
    ]
    for second in range(20, 60):
        first.look(second, [("line", "silent")] if second % 20 == 0 else [])
    assert [message.cause for message in told[2:]] == ["output mqtt"]
    again = alarms()  # this process was started anew
    again.look(1000, [("line", "silent")])
    assert len(told) == 3
    for second in range(1001, 1040):
        again.look(second, [])
    assert [(message.cause, message.state) for message in told[3:]] == [("line", "ok")]
    assert told[3].text == "ok again: silent"
    (tmp_path / "alarms.json").write_text("{")
    alarms().look(0, [])


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"webhook": {"url": "ftp://x"}}, "webhook.url: found"),
        ({"webhook": {"url": "http://user:geheim@x/"}}, "webhook.url: found"),
        ({"webhook": {"url": "http://x:99999/"}}, "webhook.url: found 'http://x:99999/', expected a port"),
        ({"webhook": {"url": "http://x/", "secret": "none"}}, "webhook.secret: "),
        ({"webhook": {"url": "http://x/", "decisions": ["passed"]}}, "webhook.decisions"),
        ({"alarms": {}}, "alarms: expected webhook, mail or both"),
        ({"alarms": {"mail": {"server": "x", "sender": "a@b", "to": ["c@d"]}}}, "alarms.mail.server: found"),
        (
            {"alarms": {"mail": {"server": "smtp://x", "sender": "a@b", "to": ["c@d"], "ca": "none"}}},
            "none cannot be read: No such file",
        ),
        ({"alarms": {"after": 5, "webhook": {"url": "http://x/"}}}, "alarms.after: found 5, expected a text"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, keys: dict[str, Any], wanted: str) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\n"
    )
    said = complaint(write_plant(tmp_path, **keys))
    assert wanted in said and "geheim" not in said


class Nonsense:
    """Answers whoever connects with some bytes, or one each 50 ms for ever."""

    def __init__(self, answer: bytes, *, drips: bool = False) -> None:
        self._answer = answer
        self._drips = drips
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    peer.sendall(self._answer)
                    while self._drips and not select.select([self._listener], [], [], 0.05)[0]:
                        peer.sendall(b"2")
                    peer.shutdown(socket.SHUT_WR)
                    peer.recv(100_000)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize(
    ("scheme", "answer", "said"),
    [
        ("http", b"220 mail\r\n", "does not speak HTTP (BadStatusLine)"),
        ("http", b"HTTP/1.1 500 \x1b[2J\xff\r\n\r\n", "answers 500 \\x1b[2J\xff"),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answers 302 Found"),
        ("http", None, "does not answer for 0.3 s"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        ("smtp", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SMTP"),
        ("smtp", b"554 go\xff away\r\n", "answers 554 go\ufffd away"),
        ("smtp", b"", "has ended the connection"),
        ("smtp", None, "does not answer for 0.3 s"),
        ("smtps", b"220 here\r\n", "does not speak TLS"),
    ],
)
def test_a_peer_that_talks_nonsense_is_told_in_one_line(
    tmp_path: Path, scheme: str, answer: bytes | None, said: str
) -> None:
    """None: it drips, so that no single byte is late."""
    peer = Nonsense(answer or b"", drips=answer is None)
    address = f"{scheme}://127.0.0.1:{peer.port}"
    key = {"timeout": "300 ms"}
    config = (
        {"webhook": {"url": address, **key}}
        if scheme.startswith("http")
        else {"mail": {"server": address, "sender": "a@b", "to": ["c@d"], **key}}
    )
    [(name, way)] = open_ways(tmp_path / "plant.yaml", AlarmsConfig.model_validate(config)).items()
    channel = Channel(name, way)
    channel.put(Message("line3", "line", "alarm", "line3 is silent", "2026-01-31T12:00:00Z"))
    channel.start()
    until(lambda: channel.trouble is not None)
    peer.close()
    channel.close(PATIENCE_S)
    assert channel.trouble.partition(str(peer.port))[2].lstrip("/: ") == said


def test_a_mail_that_was_taken_is_not_sent_again_whatever_is_answered_to_the_good_bye() -> None:
    mail = MailServer(good_bye=b"421 too busy\r\n")
    config = MailConfig(server=f"smtp://127.0.0.1:{mail.port}", sender="a@b", to=("c@d",))
    MailWay(Path("plant.yaml"), config).send(Message("line3", "line", "alarm", "silent", "2026-01-31"))
    until(lambda: len(mail.mails) == 1)
