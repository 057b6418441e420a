"""What stands between the network and the page: Host, Origin, sessions, and the headers of each answer."""

import ipaddress
import re
from collections.abc import Collection, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.access import LOCAL, Session, Sessions, may, role_of
from dashboard.labels import Labels
from dashboard.web.answers import Refused

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
COOKIE: Final = "inspectd_session"
_HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?", re.ASCII)
_MOST_AT_ONCE: Final = 256


class Guard:
    """Refuses what was not asked by a page of ours, and puts the headers on each answer.

    A foreign page in the browser of an operator must neither ask nor change anything: it may have its own
    name point to this machine, so the ``Host`` must be one of ours, and so must the ``Origin``.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], secure: bool) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._secure = secure
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            said = "this Host header names no host of ours\n"
            await self._refuse(scope, receive, send, status=421, code="host", said=said)
            return
        origin = headers.get("origin")
        foreign = (
            origin is not None and origin.lower() != f"{'https' if self._secure else 'http'}://{host.lower()}"
        )
        changes = scope["type"] == "websocket" or scope["method"] not in {"GET", "HEAD"}
        site = headers.get("sec-fetch-site", "same-origin")
        if (changes and (foreign or origin is None)) or site not in {"same-origin", "none"}:
            # A link from elsewhere to the page itself is no harm.
            navigation = not changes and headers.get("sec-fetch-mode") == "navigate"
            if not navigation:
                await self._refuse(scope, receive, send, status=403, code="origin")
                return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        if self._at_work >= _MOST_AT_ONCE:
            await self._refuse(scope, receive, send, status=429, code="too_many")
            return
        self._at_work += 1
        try:
            await self._app(scope, receive, self._with_headers(send))
        finally:
            self._at_work -= 1

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(message)
            await send(message)

        return sending

    def _add_headers(self, message: MutableMapping[str, Any]) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if self._secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, *, status: int, code: str, said: str = ""
    ) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": code})
            return
        response = PlainTextResponse(said, status) if said else Refused(status, code).answer()
        await response(scope, receive, self._with_headers(send))

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower()
        try:
            # A name may be made to point here; an address cannot.
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._hosts
        return True


class Doorkeeper:
    """Knows who asks, and what they may."""

    def __init__(self, sessions: Sessions, labels: Labels | None, *, needs_login: bool, secure: bool) -> None:
        self.sessions = sessions
        self.secure = secure
        self._labels = labels
        self._needs_login = needs_login

    @property
    def login(self) -> bool:
        """Whether one must log in."""
        return self._needs_login or bool(self._labels is not None and self._labels.users())

    def who(self, connection: HTTPConnection) -> Session | None:
        """Give the session of whoever asks; None for somebody who is not logged in."""
        session = self.sessions.find(connection.cookies.get(COOKIE))
        if session is None or (session.user == LOCAL) == self.login:
            return None
        return session if self.role(session) is not None else None

    def role(self, session: Session) -> str | None:
        """Give the role of somebody; whoever sits at the machine has all rights where there is no login."""
        if not self.login and session.user == LOCAL:
            # Without its file nobody knows whether there were users.
            return "change" if self._labels is not None else "look"
        return role_of({} if self._labels is None else self._labels.users(), session.user)

    def require(self, connection: HTTPConnection, role: str, *, changes: bool) -> Session | None:
        """Let somebody in.

        Args:
            connection: whose.
            role: that is needed.
            changes: whether something is changed; then the request must show that a page of ours made it.

        Returns:
            Who it is; None on a machine where nobody must log in and nothing is changed.

        Raises:
            Refused: they are not logged in, may not do it, or the request came from elsewhere.
        """
        session = self.who(connection)
        if session is None:
            if self.login or changes:
                raise Refused(
                    403 if changes and not self.login else 401,
                    "csrf" if changes and not self.login else "login_needed",
                )
            return None
        if not may(self.role(session), role):
            raise Refused(403, "role_needed", role=role)
        if changes and connection.headers.get("x-csrf-token", "") != session.csrf:
            raise Refused(403, "csrf")
        return session

    def cookie(self, token: str, *, gone: bool = False) -> str:
        """Make the value of the header ``Set-Cookie``."""
        secure = "; Secure" if self.secure else ""
        age = "; Max-Age=0" if gone else ""
        return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}{age}"
