import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from daemon.host.scheduling import can_give_way
from foundation.errors import InputError, refused_by_system
from verdicts.curve import CurveKeys, is_key, read_secret_key

_CREDENTIAL = "credential:"
_ITSELF = "the line itself"  # no client in a config can have this name


@dataclass(frozen=True, slots=True)
class Client:
    """Who may connect.

    Attributes:
        key: its public key, 40 characters of Z85.
        control: whether it may reload and select, too.
    """

    key: str
    control: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a message.

    Attributes:
        name: of the client whose key it was sent with; None where there are no keys.
        control: whether its key carries that right.
    """

    name: str | None
    control: bool


class Access:
    """Who may connect to the sockets of a line: here everybody who speaks ZeroMQ of today.

    Peers of the protocol's versions before 3 need no handshake, so that any bytes are messages to them, and a
    flood of garbage keeps a socket's thread busy for as long as it lasts. With an authenticator libzmq
    refuses them.

    The sockets live in its ``context``, as ZeroMQ asks one authenticator per context. To be closed after
    them.

    Attributes:
        context: of the sockets it guards.
        refused: how many connections were refused because their key is not on the list.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        if can_give_way():
            self.context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_BATCH)
        self._authenticator = ThreadAuthenticator(self.context)
        self._authenticator.start()

    def guard(self, socket: "zmq.Socket[Any]") -> None:
        """Refuse who may not connect to a socket; to be called before it is bound."""
        socket.zap_domain = b"inspectd"

    def peer_of(self, message: zmq.Frame) -> Peer | None:
        """Tell who sent a message; None when it is nobody who may be here."""
        return Peer(None, control=False)

    def own_keys(self) -> CurveKeys | None:
        """Give the line's own keys, with which ``inspectd --check`` connects to it; None without keys."""
        return None

    def close(self) -> None:
        """End; the sockets it guards have to be closed."""
        self._authenticator.stop()
        self.context.term()


class CurveAccess(Access):
    """CURVE encryption, and an allow-list of the clients' keys.

    Attributes:
        public_key: the line's own; clients need it to connect.
    """

    def __init__(self, secret_key: str, clients: Mapping[str, Client]) -> None:
        """Read the line's key and begin to answer for connections.

        Args:
            secret_key: a file of ``inspectctl keygen``, or ``credential:NAME`` for one that systemd hands
                over in ``$CREDENTIALS_DIRECTORY``.
            clients: by name.

        Raises:
            InputError: the key cannot be read, others may read it, or a client's key is invalid.
        """
        try:
            public_key, self._secret_key = read_secret_key(_path_of(secret_key))
        except ValueError as error:
            text, cause = f"curve.secret_key: {error}", error.__cause__
            if isinstance(cause, OSError):
                raise refused_by_system(text, cause) from error
            raise InputError(text) from error
        self.public_key = public_key
        self.replace(clients)
        super().__init__()
        self._authenticator.configure_curve_callback(credentials_provider=self)

    def replace(self, clients: Mapping[str, Client]) -> None:
        """Take a new allow-list.

        Requests of a client that is no longer on it are refused at once. A connection on which it only
        listens lasts until it breaks.

        Raises:
            InputError: a key is invalid or given twice; the old list stays.
        """
        names: dict[str, str] = {}
        for name, client in clients.items():
            if not is_key(client.key):
                raise InputError(
                    f"curve.clients.{name}.key: found {client.key!r}, expected a public key, "
                    f"40 characters as inspectctl keygen prints them"
                )
            if client.key in names:
                raise InputError(f"curve.clients.{name}.key: is also the key of {names[client.key]}")
            names[client.key] = name
        self._clients: tuple[dict[str, str], Mapping[str, Client]] = (names, dict(clients))

    def guard(self, socket: "zmq.Socket[Any]") -> None:
        """Let only clients on the list connect to a socket; to be called before it is bound."""
        socket.curve_server = True
        socket.curve_secretkey = self._secret_key.encode()

    def peer_of(self, message: zmq.Frame) -> Peer | None:
        """Tell who sent a message; None when its key is no longer on the list."""
        names, clients = self._clients
        try:
            key = str(message.get("User-Id"))
        except zmq.ZMQError:
            return None
        name = names.get(key)
        if name is None:
            return Peer(_ITSELF, control=False) if key == self.public_key else None
        return Peer(name, clients[name].control)

    def own_keys(self) -> CurveKeys:
        return CurveKeys(self.public_key, self._secret_key, self.public_key)

    def callback(self, domain: str, key: bytes) -> bool:
        """Answer pyzmq's authenticator, in its thread, whether a key is on the list."""
        # Whoever has the line's own secret key is the line, such as inspectd --check.
        allowed = key.decode() in self._clients[0] or key.decode() == self.public_key
        self.refused += not allowed
        return allowed


def _path_of(secret_key: str) -> Path:
    if not secret_key.startswith(_CREDENTIAL):
        return Path(secret_key)
    name = secret_key.removeprefix(_CREDENTIAL)
    if not name or "/" in name or name in {".", ".."}:
        raise InputError(f"curve.secret_key: found {secret_key!r}, expected credential:NAME without a folder")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise InputError(
            f"curve.secret_key: found {secret_key}, but there is no $CREDENTIALS_DIRECTORY; "
            f"expected to run as a service with LoadCredential={name}:FILE"
        )
    return Path(folder) / name
