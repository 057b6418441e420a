"""A client of OPC UA in a process of its own: asyncua's, obeying a test. As a program it is that process."""

import asyncio
import dataclasses
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

INSPECTD = "urn:inspectd:opcua"
VISION = "http://opcfoundation.org/UA/MachineVision"


class Refused(Exception):
    """The server answered so, or nothing."""


class OpcuaClient:
    """Starts the process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, **command: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client has ended"
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["value"]

    def connect(self, url: str, **how: Any) -> None:
        self.tell(do="connect", url=url, **how)

    def read(self, path: str) -> tuple[str, Any]:
        """Give the quality and the value of a variable."""
        quality, value = self.tell(do="read", path=path)
        return quality, value

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method; an argument is a number, or a list: name of a structure, then its Id."""
        found = self.tell(do="call", method=method, arguments=arguments)
        return found if isinstance(found, list) else [found]

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tell(do="events")
        return found

    def results(self) -> list[dict[str, Any]]:
        return [event for event in self.events() if "Decision" in event]

    def count(self) -> int:
        """Count the results that were heard."""
        return int(self.tell(do="count"))

    def changes(self) -> list[Any]:
        found: list[Any] = self.tell(do="changes")
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class _Process:
    def __init__(self) -> None:
        self.client: Any = None
        self.heard: list[dict[str, Any]] = []
        self.changed: list[Any] = []

    async def connect(self, url: str, **how: Any) -> None:
        from asyncua import Client

        if self.client is not None:
            await self.client.disconnect()
        # Beside other work a server may take longer to answer than the second that asyncua waits.
        client = Client(url, timeout=how.get("timeout_s", 60), watchdog_intervall=25.0)
        self.client = None
        client.session_timeout = how.get("session_ms", 60_000)
        if "policy" in how:
            await client.set_security_string(
                ",".join((how["policy"], "SignAndEncrypt", how["certificate"], how["key"]))
            )
        if "user" in how:
            client.set_user(how["user"])
            client.set_password(how["password"])
        if "user_certificate" in how:
            await client.load_client_certificate(how["user_certificate"])
            await client.load_private_key(how["user_key"])
        if "intrudes" in how:
            _intrude(client, how["intrudes"])
        await client.connect()
        self.client = client
        await client.load_data_type_definitions()
        self.own, self.vision = [await client.get_namespace_index(uri) for uri in (INSPECTD, VISION)]

    async def endpoints(self, url: str) -> list[str]:
        from asyncua import Client

        found = await Client(url, timeout=60).connect_and_get_server_endpoints()
        return [f"{one.SecurityPolicyUri.partition('#')[2]} {one.SecurityMode.name}" for one in found]

    async def read(self, path: str) -> Any:
        value = await self._node(path).read_data_value(raise_on_bad_status=False)
        return value.StatusCode.name, None if value.Value is None else value.Value.Value

    async def write(self, path: str, text: str) -> None:
        await self._node(path).write_value(text)

    async def call(self, method: str, arguments: list[Any]) -> Any:
        from asyncua import ua

        types: Any = ua
        given = [
            getattr(types, argument[0])(Id=argument[1])
            if isinstance(argument, list)
            else ua.Variant(argument, ua.VariantType.Int32 if argument < 0 else ua.VariantType.UInt32)
            for argument in arguments
        ]
        parent, _, name = method.rpartition(".")
        return await self._node(parent).call_method(f"{self.vision}:{name}", *given)

    async def listen(self) -> None:
        from asyncua import ua

        subscription = await self.client.create_subscription(100, self)
        event_types = [
            ua.NodeId("InspectionResultReadyEventType", self.own),
            *(ua.NodeId(number, self.vision) for number in (1018, 1022, 1038)),
        ]
        await subscription.subscribe_events(self._node(""), event_types)
        await subscription.subscribe_data_change(self._node("VisionStateMachine.CurrentState"))

    def event_notification(self, event: Any) -> None:
        fields = event.get_event_props_as_fields_dict()
        self.heard.append(
            {name: variant.Value for name, variant in fields.items() if variant.Value is not None}
        )

    def datachange_notification(self, _node: Any, value: Any, data: Any) -> None:
        self.changed.append([data.monitored_item.Value.StatusCode.name, value and value.Text])

    async def events(self) -> list[Any]:
        return self.heard

    async def count(self) -> int:
        return sum("Decision" in event for event in self.heard)

    async def changes(self) -> list[Any]:
        return self.changed

    def _node(self, path: str) -> Any:
        from asyncua import ua

        return self.client.get_node(ua.NodeId(f"line3.{path}" if path else "line3", self.own))


def _intrude(client: Any, how: str) -> None:
    """Take any endpoint for the wanted one, and show another certificate than that of the channel."""
    from asyncua import Client

    any_endpoint: Any = staticmethod(lambda endpoints, *_: endpoints[0])
    setattr(Client, "find_endpoint", any_endpoint)  # noqa: B010 - mypy lets nobody assign to a method
    if how.endswith(".pem"):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        shown = x509.load_pem_x509_certificate(Path(how).read_bytes()).public_bytes(Encoding.DER)
        create = client.uaclient.create_session

        async def forged(parameters: Any) -> Any:
            parameters.ClientCertificate = shown
            return await create(parameters)

        client.uaclient.create_session = forged


def as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


async def _main() -> None:
    process, loop = _Process(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = {"value": await getattr(process, command.pop("do"))(**command)}
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=as_json), flush=True)


if __name__ == "__main__":
    import logging

    sys.path.insert(0, str(Path(__file__).parent.parent))
    logging.disable()
    asyncio.run(_main())
