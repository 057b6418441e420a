"""Print each result of a line, by OPC UA: python opcua_results.py opc.tcp://127.0.0.1:4840 scada PASSWORD."""

import asyncio
import sys
from pathlib import Path

from asyncua import Client, ua

INSPECTD = "urn:inspectd:opcua"
FOLDER = Path()  # client.pem and client.key.pem: docs/opcua.md says how they are made


class Printer:
    """Told by asyncua."""

    def event_notification(self, event):
        decision = ("", "pass", "reject", "fault")[event.Decision]
        print(decision, event.Seq, event.Camera, event.Score, flush=True)


async def main(url: str, user: str, password: str) -> None:
    client = Client(url)
    client.set_user(user)
    client.set_password(password)
    certificate, key = FOLDER / "client.pem", FOLDER / "client.key.pem"
    await client.set_security_string(f"Basic256Sha256,SignAndEncrypt,{certificate},{key}")
    async with client:
        await client.load_data_type_definitions()
        index = await client.get_namespace_index(INSPECTD)
        event_type = client.get_node(ua.NodeId("InspectionResultReadyEventType", index))
        subscription = await client.create_subscription(200, Printer())
        await subscription.subscribe_events(evtypes=event_type)
        print("listening", flush=True)
        while True:
            await asyncio.sleep(1)
            await client.check_connection()


asyncio.run(main(*sys.argv[1:4]))
