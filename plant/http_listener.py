"""The read-only listener: what Prometheus scrapes and what probes ask, for this machine or named networks."""

import errno
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from foundation.errors import InputError, Unavailable
from lines.section import Section
from plant.section import whole_port

_LISTEN: Final = re.compile(r"http://(\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):([0-9]+)/?", re.ASCII)
_MOST_AT_ONCE: Final = 16
_SLOWEST_S: Final = 5.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 10.1.0.0/16, or an address") from None
    return text


class MetricsConfig(Section):
    """Where metrics and probes are answered, and to whom beside this machine."""

    networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    listen: str = Field(default="http://127.0.0.1:9321", validate_default=True)

    @field_validator("listen")
    @classmethod
    def _others_are_named(cls, text: str, info: ValidationInfo) -> str:
        match = _LISTEN.fullmatch(text)
        if match is None:
            raise ValueError("expected http:// with an address and a port, such as http://127.0.0.1:9321")
        whole_port(match[2])
        host, _ = address_of(text)
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            raise ValueError("expected an address of this machine, such as 127.0.0.1") from None
        if not loopback and not info.data.get("networks", ("wrong",)):
            raise ValueError("which others can reach; expected the key networks: who may ask")
        return text


def address_of(listen: str) -> tuple[str, int]:
    """Give host and port of a checked address."""
    match = _LISTEN.fullmatch(listen)
    assert match is not None
    host = match[1].strip("[]")
    return "127.0.0.1" if host == "localhost" else host, int(match[2])


class Answer(NamedTuple):
    """What is answered to a GET."""

    status: int
    kind: str
    body: bytes


def as_json(content: object, *, good: bool) -> Answer:
    """Answer a probe: 200 when all is well, else 503."""
    body = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return Answer(200 if good else 503, "application/json", body.encode())


class Listener:
    """An HTTP server that knows GET and HEAD of a few paths, and changes nothing."""

    def __init__(self, config: MetricsConfig, paths: dict[str, Callable[[], Answer]]) -> None:
        """Bind the address.

        Raises:
            InputError: it cannot be bound; ``Unavailable`` when something else has it.
        """
        networks = [ipaddress.ip_network(text) for text in config.networks]
        host, port = address_of(config.listen)
        kind = type(
            "_Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in host else socket.AF_INET}
        )
        handler = type("_Handler", (_Handler,), {"paths": paths})
        try:
            self._server: _Server = kind((host, port), handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "is taken by another program" if taken else error.strerror
            raise (Unavailable if taken or error.errno == errno.EADDRNOTAVAIL else InputError)(
                f"metrics.listen: {config.listen} {reason}"
            ) from error
        self._server.networks = networks

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    networks: tuple[Network, ...] | list[Network] = ()

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Let in this machine and the named networks, and only so many at once: the others are hung up on."""
        address = ipaddress.ip_address(client_address[0].partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not (address.is_loopback or any(address in network for network in self.networks)):
            return False
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    paths: dict[str, Callable[[], Answer]]
    timeout = _SLOWEST_S
    server_version = "inspectd-plant"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        make = self.paths.get(path)
        answer = (
            Answer(404, "text/plain", f"expected one of {', '.join(self.paths)}\n".encode())
            if make is None
            else make()
        )
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """A scrape is nothing to tell."""
