"""Act on rejects and faults, and acknowledge: python acknowledge.py tcp://127.0.0.1:5561 line3 gate."""

import json
import secrets
import sys
import time

import zmq

SILENCE_S = 3.0  # health comes every second
SIGN_OF_LIFE_S = 0.5  # the line takes who is not heard for 3 seconds for absent

control, line, name = sys.argv[1:4]
client = secrets.token_hex(8)  # of this process: the line knows it again by this when the connection breaks
socket = zmq.Context.instance().socket(zmq.DEALER)
socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, 5000  # find out that a cable was pulled
socket.connect(control)


def tell(join: bool, row: int | None) -> float:
    """Acknowledge everything up to a row of the journal, or just say that we are here."""
    request = {"schema": 1, "request": "acknowledge", "id": 0, "name": name, "client": client}
    socket.send_json(request | {"join": join, "row": row})
    return time.monotonic()


joined = False
last: dict[str, int] = {}  # boot -> seq of its last verdict
told = tell(join=True, row=None)
deadline = time.monotonic() + SILENCE_S
while True:
    if time.monotonic() >= told + SIGN_OF_LIFE_S:
        told = tell(join=not joined, row=None)
    if time.monotonic() >= deadline:
        print(f"silent: stop {line}", flush=True)
        deadline = time.monotonic() + SILENCE_S
    if not socket.poll(100):
        continue
    header, *frames = socket.recv_multipart()
    reply = json.loads(header)
    match reply["reply"]:
        case "joined":
            joined = True
        case "rejoin":  # the daemon was restarted
            told = tell(join=True, row=None)
        case "replaced" | "refused":
            sys.exit(f"{name}: {reply['text'] or 'another process came with this name'}")
        case "health":
            deadline = time.monotonic() + SILENCE_S
        case "verdicts":
            for verdict in map(json.loads, frames):
                boot, seq = verdict["boot"], verdict["seq"]
                known = last.get(boot, 0 if last else seq - 1)
                if seq <= known:
                    continue  # sent again
                last[boot] = seq
                if seq > known + 1:
                    print(f"lost {known + 1} to {seq - 1}: treat those parts as rejects", flush=True)
                if verdict["decision"] != "pass":
                    print(
                        verdict["decision"], verdict["camera"], verdict["frame"], verdict["part"], flush=True
                    )
            told = tell(join=False, row=reply["rows"][-1])
