"""From the start of the dashboard to its end."""

import logging
import os
import signal
import socket
import ssl
import sys
from asyncio import sslproto
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.config import DashboardConfig
from dashboard.labels import Labels
from dashboard.lake import try_lake
from dashboard.watch import LineWatch
from foundation.errors import InputError, Unavailable, refused_by_system

if TYPE_CHECKING:
    import uvicorn

_log = logging.getLogger(__name__)
_BACKLOG = 1024
_TLS_BUFFER = 32 * 1024
_LABELS = "labels"


def labels_file(config: DashboardConfig) -> Path:
    """Name the file of labels, users and changes."""
    return config.state / _LABELS


def check(config: DashboardConfig) -> int:
    """Check what can be checked without serving; give the exit code.

    Raises:
        InputError: something is wrong.
    """
    _tls(config)
    if config.lake is not None:
        try_lake(config.lake)
    if labels_file(config).exists():
        Labels(labels_file(config)).close()
    print(f"{config.file}: in order: lines {', '.join(config.lines)}, {config.address}")
    return 0


def serve(config: DashboardConfig) -> int:
    """Serve until SIGTERM or Ctrl-C; give the exit code.

    Raises:
        InputError: the port is taken, the certificate is of no use, a file is damaged.
    """
    import uvicorn

    from dashboard.web.app import application

    tls = _tls(config)
    # asyncio keeps a buffer for each connection before anybody logged in: a thousand would need 256 MB.
    sslproto.SSLProtocol.max_size = _TLS_BUFFER
    with _bound(config) as bound:
        _make(config.state)
        labels, trouble = _labels(config)
        watches = {name: LineWatch(line, config, labels) for name, line in config.lines.items()}
        app = application(config, watches, labels, trouble)
        server = _server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                ws="websockets-sansio",
                ws_max_size=4096,
                ws_per_message_deflate=False,
                ws_ping_interval=20,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
                backlog=_BACKLOG,
                h11_max_incomplete_event_size=32_768,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        logging.getLogger("uvicorn.error").addFilter(_is_no_broken_request)
        _announce(config)
        try:
            server.run(sockets=[bound])
        finally:
            for watch in watches.values():
                watch.close()
            if labels is not None:
                labels.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if server.started else 1)  # threads that listen to a line do not end by themselves


def _is_no_broken_request(record: logging.LogRecord) -> bool:
    """Keep out of the log that an answer was given to a request that had broken HTTP meanwhile.

    uvicorn has answered it and closes the connection; the answer that it cannot send is no fault of ours.
    """
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "LocalProtocolError" or "MUST_CLOSE" not in str(error)


def _server(config: "uvicorn.Config") -> "uvicorn.Server":
    """Make a server that SIGTERM and Ctrl-C end in order; uvicorn's own repeats the signal in the end."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

    return Server(config)


def _announce(config: DashboardConfig) -> None:
    print(f"{config.address}  shows {', '.join(config.lines)}", flush=True)
    from foundation.sd_notify import Service

    Service().ready()


def _labels(config: DashboardConfig) -> tuple[Labels | None, str | None]:
    file = labels_file(config)
    try:
        labels = Labels(file)
    except InputError as error:
        if config.needs_login:
            raise  # nobody could log in
        _log.warning("%s: labels cannot be given or seen", error)
        return None, str(error)
    if labels.damaged is not None:
        _log.warning("%s", labels.damaged)
    if config.needs_login and not labels.users():
        labels.close()
        raise InputError(
            f"{config.file}: listen: {config.address} needs a login, and there is no user yet: "
            f"inspectd-dashboard --config {config.file} --user NAME --role change"
        )
    return labels, None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused_by_system(f"state: {folder} cannot be made: {error.strerror}", error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"state: {folder} cannot be written; expected a folder of the dashboard's own user")


@contextmanager
def _bound(config: DashboardConfig) -> Iterator[socket.socket]:
    """Bind the address, so that one that is taken is one line."""
    host = config.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, as only then asyncio sends small answers at once (TCP_NODELAY).
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, config.port))
        except OSError as error:
            reason = "is taken by another program" if error.errno == 98 else error.strerror
            raise Unavailable(f"{config.file}: listen: {config.address} {reason}") from error
        bound.listen(_BACKLOG)  # who comes before the server does waits
        yield bound


def _tls(config: DashboardConfig) -> ssl.SSLContext | None:
    """Read certificate and key; None without.

    Raises:
        InputError: they are missing, do not belong together, are not valid yet or any more.
    """
    if config.certificate is None or config.key is None:
        return None
    from importlib.util import find_spec

    for key, file in (("certificate", config.certificate), ("key", config.key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise InputError(f"{config.file}: {key}: {file} cannot be read: {error.strerror}") from error
    if find_spec("cryptography") is None:
        raise InputError("cryptography: not installed here; expected the extra dashboard")
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificates(config.certificate.read_bytes())[0]
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{config.file}: certificate: {config.certificate} holds no certificate in PEM"
        ) from error
    now, day = datetime.now(UTC), "%Y-%m-%d"
    if certificate.not_valid_after_utc <= now:
        raise InputError(
            f"{config.file}: certificate: {config.certificate} expired on "
            f"{certificate.not_valid_after_utc:{day}}; expected one that is valid"
        )
    if certificate.not_valid_before_utc > now:
        raise InputError(
            f"{config.file}: certificate: {config.certificate} is valid from "
            f"{certificate.not_valid_before_utc:{day}} on; is the clock right?"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.key, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise InputError(
            f"{config.file}: key: {config.key} is not the key of {config.certificate}, or has a password"
        ) from error
    return context


def _no_password() -> str:
    """Refuse a key with a password, instead of asking for it on the terminal."""
    raise ValueError("has a password")
