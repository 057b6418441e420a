"""Verdicts, state and recipes for SCADA systems, by OPC UA (docs/opcua.md has the address space)."""

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from foundation.errors import InputError
from plant.outputs import Delivery, LineNow, PeerFailed
from plant.outputs.opcua.config import address_of
from plant.outputs.opcua.security import read_security
from verdicts import LineControl

if TYPE_CHECKING:
    from plant.config import Plant
    from plant.outputs.opcua.methods import Methods
    from plant.outputs.opcua.space import Space

_START_S: Final = 120.0
_TURN_S: Final = 60.0
_SELECT_S: Final = 120.0
_LOOK_EVERY_S: Final = 2.0
_SECURE: Final = {
    "Basic256Sha256": "Basic256Sha256_SignAndEncrypt",
    "Aes256_Sha256_RsaPss": "Aes256Sha256RsaPss_SignAndEncrypt",
    "None": "NoSecurity",
}


class OpcuaServer:
    """A server in a thread. Once it runs it stays: whoever watches must see that the line does not."""

    most_at_once = 100

    def __init__(self, plant: "Plant") -> None:
        """Read certificates, keys and users.

        Raises:
            InputError: one of them is of no use.
        """
        from plant.outputs.opcua.products import Products

        assert plant.config.opcua is not None
        self._config = plant.config.opcua
        self._line = plant.line
        self._security = read_security(plant.file, self._config, plant.line.name)
        _check_nodeset()
        self._products = Products(plant.line)
        self._looked_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._space: Space | None = None
        self._methods: Methods | None = None
        self._trouble: str | None = None
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None

    def connect(self) -> bool:
        """Begin to listen, unless it does so already."""
        if self._thread is None or not self._thread.is_alive():
            self._check_free()
            self._space, self._trouble = None, None
            self._begun.clear()
            self._thread = threading.Thread(target=self._run, name="opcua", daemon=True)
            self._thread.start()
        if not self._begun.wait(_START_S) or self._trouble is not None:
            raise PeerFailed(f"{self._config.listen}: {self._trouble or 'does not begin'}")
        return True

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Hand results over to those who listen; they can be asked for afterwards."""
        assert self._space is not None
        self._do(self._space.publish(deliveries))

    def tell(self, line: LineNow) -> None:
        """Show how the line fares, and which products it has."""
        assert self._space is not None
        now_s = time.monotonic()
        if now_s - self._looked_s > _LOOK_EVERY_S:
            self._looked_s = now_s
            if self._products.look():
                self._do(self._show_products(self._space))
        self._do(self._space.show(line))

    def close(self) -> None:
        """Say that nothing is known of the line. Clients stay connected."""
        if self._space is None or self._trouble is not None:
            return
        with contextlib.suppress(PeerFailed):  # then the next connection says why
            self._do(self._space.show(LineNow(self._line.name, None, silent=True)))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        loop = self._loop
        if self._trouble is not None or loop is None or loop.is_closed():
            work.close()
            raise PeerFailed(f"{self._config.listen}: {self._trouble or 'has ended'}")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            future.result(_TURN_S)
        except TimeoutError as error:
            future.cancel()
            raise PeerFailed(f"{self._config.listen}: is busy for more than {_TURN_S:g} s") from error

    def _check_free(self) -> None:
        """Look whether the address can be had: making the address space takes seconds."""
        host, port = address_of(self._config.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "is taken by another program" if taken else error.strerror
            raise PeerFailed(f"{self._config.listen}: {reason}") from error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._trouble = " ".join(str(error).split()) or type(error).__name__
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        from asyncua import Server, ua
        from asyncua.ua import SecurityPolicyType

        from plant.outputs.opcua.methods import Methods
        from plant.outputs.opcua.model import Model
        from plant.outputs.opcua.results import Results
        from plant.outputs.opcua.sessions import Sessions
        from plant.outputs.opcua.space import Space

        config, security = self._config, self._security
        sessions = Sessions(security, config.clients)
        server = Server(sessions)
        await server.init()
        host, port = address_of(config.listen)
        server.set_endpoint(f"opc.tcp://[{host}]:{port}/" if ":" in host else f"opc.tcp://{host}:{port}/")
        server.socket_address = (host, port)
        server.set_server_name(f"inspectd {self._line.name}")
        server.application_type = ua.ApplicationType.Server
        server.product_uri = "urn:inspectd"
        await server.set_application_uri(security.uri)
        await server.set_build_info(
            server.product_uri, "inspectd", server.name, version("inspectd"), "", datetime.now(UTC)
        )
        server.set_security_policy([SecurityPolicyType[_SECURE[name]] for name in security.policies])
        sessions.certificate, sessions.private_key = security.certificate, security.key
        model = Model()
        await model.load(server)
        results = Results(self._line.journal, config.keep, config.decisions)
        await asyncio.to_thread(results.fill)
        space = Space(server, model, self._line.name, self._products, results)
        await space.build()
        await asyncio.to_thread(self._products.look)
        await space.show_products()
        self._methods = Methods(server, sessions, space, self._select)
        self._methods.link()
        await server.start()
        self._loop, self._space = asyncio.get_running_loop(), space
        self._begun.set()
        try:
            await sessions.guard(lambda: [] if server.bserver is None else server.bserver.clients)
        finally:
            await server.stop()

    async def _show_products(self, space: "Space") -> None:
        assert self._methods is not None
        await space.show_products()
        self._methods.link_recipes()

    def _select(self, product: str) -> str:
        assert self._line.control is not None
        with LineControl(self._line.control, curve=self._line.curve, timeout_s=_SELECT_S) as control:
            return control.select(product)


def _check_nodeset() -> None:
    """See that the standard's nodeset is there.

    Raises:
        InputError: it is missing.
    """
    from plant.outputs.opcua.nodeset import NODESET

    if not NODESET.is_file():
        raise InputError(f"{NODESET}: missing; expected it with inspectd: install inspectd[opcua] again")
