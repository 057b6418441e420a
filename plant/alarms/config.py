"""The section of the alarms."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from lines.section import File, Section
from plant.http_post import WebAddress
from plant.section import Duration, Seconds, whole_port

_SERVER: Final = re.compile(r"(smtps?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]+))?/?", re.ASCII)
_MAIL: Final = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9_.-]{1,255}", re.ASCII)


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    if match is None:
        raise ValueError("expected smtp://HOST:PORT, or smtps:// with TLS from the first byte on")
    whole_port(match[3] or "25")
    return text


def server_of(text: str) -> tuple[bool, str, int]:
    """Give whether TLS comes first, the host and the port of a checked address."""
    match = _SERVER.fullmatch(text)
    assert match is not None
    secure = match[1] == "smtps"
    return secure, match[2].strip("[]"), int(match[3] or (465 if secure else 25))


def _mail(text: str) -> str:
    if not _MAIL.fullmatch(text):
        raise ValueError("expected the address of a mailbox such as line3@example.org")
    return text


Mailbox = Annotated[str, AfterValidator(_mail)]


class MailConfig(Section):
    """Who is written to, and through which server."""

    server: Annotated[str, AfterValidator(_server)]
    sender: Mailbox
    to: Annotated[tuple[Mailbox, ...], Field(min_length=1, max_length=100)]
    user: Annotated[str, Field(min_length=1)] | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the password, or credential:NAME of the service"
    )
    ca: File | None = Field(default=None, description="certificates that may have signed the server's, PEM")
    timeout: Duration = "20 s"

    @model_validator(mode="after")
    def _user_has_password(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("expected user and password together, or neither")
        return self


class AlarmsConfig(Section):
    """Who is told when something is wrong, and when it is well again."""

    after: Seconds = Field(default="5 s", description="what ends sooner is not told")
    ok_after: Seconds = Field(default="30 s", description="so long it has to be well before that is told")
    webhook: WebAddress | None = None
    mail: MailConfig | None = None

    @model_validator(mode="after")
    def _somebody_is_told(self) -> Self:
        if self.webhook is None and self.mail is None:
            raise ValueError("expected webhook, mail or both")
        return self
