"""Who may do what: passwords, sessions and roles."""

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ROLES: Final = ("look", "judge", "change")
"""A role may do what those before it may."""
LOCAL: Final = "local"
"""Name of whoever sits at the machine, where nobody must log in."""
SHORTEST_PASSWORD: Final = 8
LONGEST_PASSWORD: Final = 1000
# As OWASP advises where memory is short: 16 MB at a time.
_COST: Final = {"n": 2**14, "r": 8, "p": 5}
_MOST_SESSIONS: Final = 2_000
_IDLE_S: Final = 8 * 3600.0
_LONGEST_S: Final = 24 * 3600.0
_FREE_TRIES: Final = 5
_LONGEST_WAIT_S: Final = 60.0
"""Whoever guesses also keeps the real one out for so long."""
_MOST_TRIED: Final = 10_000


def secret_of(password: str) -> str:
    """Make what a password is checked against later: salt and scrypt's key, in base64."""
    salt = secrets.token_bytes(16)
    return f"{_text(salt)}${_text(_key(password, salt))}"


def is_password(password: str, secret: str | None) -> bool:
    """Check a password; without a secret it takes as long, so that nobody learns which users there are."""
    salt, _, expected = (secret or f"{_text(bytes(16))}$").partition("$")
    found = _key(password, base64.b64decode(salt))
    return secret is not None and hmac.compare_digest(_text(found), expected)


_turn = threading.Lock()  # one at a time: many at once would need much memory


def _key(password: str, salt: bytes) -> bytes:
    with _turn:
        return hashlib.scrypt(
            password.encode(errors="surrogatepass"), salt=salt, dklen=32, maxmem=64_000_000, **_COST
        )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@dataclass
class Session:
    """Somebody's browser.

    Attributes:
        user: who logged in.
        csrf: what each change must bring with it.
        ended: whether somebody logged out, or was logged out.
    """

    user: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    began_s: float = field(default_factory=time.monotonic)
    seen_s: float = field(default_factory=time.monotonic)
    ended: bool = False

    @property
    def expired(self) -> bool:
        """Whether one must log in again; by a clock that nobody sets."""
        now_s = time.monotonic()
        return self.ended or now_s - self.seen_s > _IDLE_S or now_s - self.began_s > _LONGEST_S


class Sessions:
    """The browsers that are known, by a token that only they have. Used in one thread."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, user: str) -> tuple[str, Session]:
        """Make a session, and the token for its cookie; of too many, those idle longest go."""
        token, session = secrets.token_urlsafe(32), Session(user)
        self._sessions[_digest(token)] = session
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)[1].ended = True
        return token, session

    def find(self, token: str | None) -> Session | None:
        """Give the session of a token; None where there is none, or it expired."""
        if not token:
            return None
        key = _digest(token)
        session = self._sessions.get(key)
        if session is None:
            return None
        if session.expired:
            del self._sessions[key]
            return None
        session.seen_s = time.monotonic()
        self._sessions.move_to_end(key)
        return session

    def end(self, token: str | None) -> None:
        """Forget one."""
        session = self._sessions.pop(_digest(token or ""), None)
        if session is not None:
            session.ended = True

    def end_all(self, user: str) -> None:
        """Forget all of a user whose password or role changed."""
        for key in [key for key, session in self._sessions.items() if session.user == user]:
            self._sessions.pop(key).ended = True


class Tries:
    """Slows down whoever guesses passwords: after five wrong ones each takes twice as long as the last."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, *names: str) -> float:
        """Tell for how long names and addresses have to wait."""
        return max(0.0, *(self._until_s(name) - time.monotonic() for name in names))

    def wrong(self, *names: str) -> None:
        """Note a wrong password."""
        for name in names:
            number = self._wrong.pop(name, (0, 0.0))[0] + 1
            wait_s = 0.0 if number < _FREE_TRIES else min(2.0 ** (number - _FREE_TRIES), _LONGEST_WAIT_S)
            self._wrong[name] = number, time.monotonic() + wait_s
        while len(self._wrong) > _MOST_TRIED:
            self._wrong.popitem(last=False)

    def right(self, *names: str) -> None:
        """Forget what was wrong before."""
        for name in names:
            self._wrong.pop(name, None)

    def _until_s(self, name: str) -> float:
        return self._wrong.get(name, (0, 0.0))[1]


def role_of(users: Mapping[str, Mapping[str, Any]], user: str) -> str | None:
    """Give a user's role; None for one who is not there any more."""
    found = users.get(user)
    return None if found is None else str(found["role"])


def may(role: str | None, needed: str) -> bool:
    """Whether a role is enough."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(needed)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
