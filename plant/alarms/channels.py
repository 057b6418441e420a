"""The ways out of alarms: each a thread that tries until a message is taken, with a bounded queue."""

import contextlib
import logging
import smtplib
import threading
from collections import deque
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final, Protocol

from foundation.secret_file import read_secret
from plant.alarms.alarms import Message, content_of
from plant.alarms.config import AlarmsConfig, MailConfig, server_of
from plant.http_post import Poster, WebAddress
from plant.outputs import PeerFailed
from plant.section import seconds
from plant.tls import trusting

_log = logging.getLogger(__name__)
_MOST_WAITING: Final = 200
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class Way(Protocol):
    """One way to tell somebody."""

    def send(self, message: Message) -> None:
        """Tell it.

        Raises:
            PeerFailed: not now.
        """
        ...


def open_ways(file: Path, config: AlarmsConfig) -> dict[str, Way]:
    """Open the ways that the config names.

    Raises:
        InputError: a secret or certificate is of no use.
    """
    ways: dict[str, Way] = {}
    if config.webhook is not None:
        ways["alarms.webhook"] = WebWay(file, config.webhook)
    if config.mail is not None:
        ways["alarms.mail"] = MailWay(file, config.mail)
    return ways


class WebWay:
    """Posts a message as JSON."""

    def __init__(self, file: Path, config: WebAddress) -> None:
        self._poster = Poster(file, "alarms.webhook", config)

    def send(self, message: Message) -> None:
        self._poster.post(content_of(message))


class MailWay:
    """Writes an e-mail. A password is only ever sent through TLS."""

    def __init__(self, file: Path, config: MailConfig) -> None:
        self._config = config
        self._secure, self._host, self._port = server_of(config.server)
        self._timeout_s = seconds(config.timeout)
        self._password = (
            None if config.password is None else read_secret(file, "alarms.mail.password", config.password)
        )
        self._context = trusting(file, "alarms.mail.ca", config.ca)

    def send(self, message: Message) -> None:
        config = self._config
        mail = EmailMessage()
        mail["From"], mail["To"] = config.sender, ", ".join(config.to)
        mail["Subject"] = f"[inspectd {message.line}] {message.text}"[:200]
        mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=config.sender.partition("@")[2])
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(
            f"{message.text}\n\nline: {message.line}\ncause: {message.cause}\nsince: {message.since}\n"
        )
        try:
            with self._connected() as server:
                server.send_message(mail)
        except (smtplib.SMTPException, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PeerFailed(f"{config.server}: {reason}") from error

    def _connected(self) -> smtplib.SMTP:
        if self._secure:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)
        try:
            server.ehlo()
            if not self._secure and server.has_extn("starttls"):
                server.starttls(context=self._context)
                server.ehlo()
            elif not self._secure and self._password is not None:
                raise smtplib.SMTPException("offers no TLS, and a password is not sent without it")
            if self._config.user is not None and self._password is not None:
                server.login(self._config.user, self._password)
        except BaseException:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.close()
            raise
        return server


class Channel:
    """Sends messages in order, for as long as it takes; when too many wait, the oldest goes.

    Attributes:
        trouble: one line about why nothing is taken; None while it is.
    """

    def __init__(self, name: str, way: Way) -> None:
        self.name = name
        self.trouble: str | None = None
        self._way = way
        self._waiting: deque[Message] = deque(maxlen=_MOST_WAITING)
        self._woken = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Have a message sent."""
        self._waiting.append(message)
        self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Send what waits if that is possible, and end."""
        self._end.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            if not self._waiting:
                if self._end.is_set():
                    return
                self._woken.wait()
                self._woken.clear()
                continue
            message = self._waiting[0]
            try:
                self._way.send(message)
            except PeerFailed as error:
                if self.trouble != str(error):
                    _log.warning("%s: %s; trying again", self.name, error)
                self.trouble = str(error)
                if self._end.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self.trouble, pause_s = None, _FIRST_PAUSE_S
            with contextlib.suppress(IndexError):
                if self._waiting[0] is message:  # else the queue was full, and it went
                    self._waiting.popleft()
