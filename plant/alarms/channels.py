"""The ways out of alarms: each a thread that tries until a message is taken, with a bounded queue."""

import contextlib
import logging
import smtplib
import ssl
import threading
from collections import deque
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Final, Protocol

from foundation.errors import printable
from foundation.secret_file import read_secret
from foundation.tls import reason
from plant.alarms.alarms import Message, content_of
from plant.alarms.config import AlarmsConfig, MailConfig, server_of
from plant.deadline import hanging_up_after
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
        server: smtplib.SMTP = (
            smtplib.SMTP_SSL(timeout=self._timeout_s, context=self._context)
            if self._secure
            else smtplib.SMTP(timeout=self._timeout_s)
        )
        # The name in its certificate; the library only notes it when it connects at once.
        server._host = self._host  # type: ignore[attr-defined]
        try:
            with hanging_up_after(self._timeout_s, lambda: getattr(server, "sock", None)):
                self._log_in(server)
                server.send_message(mail)
                server.putcmd("quit")  # it has been taken, whatever is answered to that
        except (smtplib.SMTPException, OSError) as error:
            raise PeerFailed(f"{config.server}: {_why(error, self._timeout_s)}") from error
        finally:
            server.close()

    def _log_in(self, server: smtplib.SMTP) -> None:
        code, text = server.connect(self._host, self._port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        server.ehlo()
        if not self._secure and server.has_extn("starttls"):
            server.starttls(context=self._context)
            server.ehlo()
        elif not self._secure and self._password is not None:
            raise smtplib.SMTPException("offers no TLS, and a password is not sent without it")
        if self._config.user is not None and self._password is not None:
            server.login(self._config.user, self._password)


def _why(error: Exception, timeout_s: float) -> str:
    """Put what a mail server does into plain words."""
    late = f"does not answer for {timeout_s:g} s"
    match error:
        case TimeoutError():
            return late
        case ssl.SSLError():
            return reason(error)
        case smtplib.SMTPServerDisconnected():
            return late if isinstance(error.__context__, TimeoutError) else "has ended the connection"
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            [(recipient, (code, text)), *_] = refused.items()
            return f"refuses {recipient}: {code} {_shown(text)}"
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=text):
            return "does not speak SMTP" if code == -1 else f"answers {code} {_shown(text)}"
        case _:
            return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _shown(text: bytes | str) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return " ".join(shown.split())[:200]


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
                trouble = printable(str(error))
                if self.trouble != trouble:
                    _log.warning("%s: %s; trying again", self.name, trouble)
                self.trouble = trouble
                if self._end.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self.trouble, pause_s = None, _FIRST_PAUSE_S
            with contextlib.suppress(IndexError):
                if self._waiting[0] is message:  # else the queue was full, and it went
                    self._waiting.popleft()
