"""Act on the rejects and faults of one line: python subscribe.py tcp://127.0.0.1:5560 line3."""

import json
import sys
import time

import zmq

SILENCE_S = 3.0  # health comes every second

address, line = sys.argv[1:3]
socket = zmq.Context.instance().socket(zmq.SUB)
socket.rcvhwm = 100_000  # when we fall further behind, messages are dropped: seq shows it
socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, 5000  # find out that a cable was pulled
socket.subscribe(f"{line}/")  # passes too: seq counts every verdict
socket.connect(address)

last: dict[str, int] = {}  # boot -> seq of its last verdict
deadline = time.monotonic() + SILENCE_S
while True:
    if not socket.poll(max(0, (deadline - time.monotonic()) * 1000)):
        print(f"silent: stop {line}", flush=True)
        deadline = time.monotonic() + SILENCE_S
        continue
    try:
        topic, payload = socket.recv_multipart()
        message = json.loads(payload)
        schema, boot, seq = message["schema"], message["boot"], message["seq"]
    except (ValueError, KeyError, TypeError):
        continue
    if schema != 1:
        continue
    is_health = topic.endswith(b"/-/health")
    if is_health:
        deadline = time.monotonic() + SILENCE_S
    due = seq if is_health else seq - 1  # what must have come before this message
    known = last.get(boot, 0 if last else due)
    last[boot] = max(known, seq)
    if due > known:
        print(f"lost {known + 1} to {due}: treat those parts as rejects", flush=True)
    if not is_health and seq > known and message["decision"] != "pass":
        print(message["decision"], message["camera"], message["frame"], message["part"], flush=True)
