"""A gate on another machine, with keys: python secure_gate.py tcp://line3:5560 line3 gate.key line3.pub.

`inspectctl keygen` makes both files; the line's config names the gate's public key under `curve`.
"""

import sys

from verdicts import CurveKeys, LineSilent, VerdictsLost, subscribe

address, line, own_key, line_key = sys.argv[1:5]
keys = CurveKeys.read(own_key, line_key)
verdicts = subscribe(address, line=line, decisions={"reject", "fault"}, curve=keys)
while True:
    try:
        for verdict in verdicts:
            print(verdict.decision, verdict.camera, verdict.frame, flush=True)
    except (VerdictsLost, LineSilent) as trouble:
        print(f"eject everything: {trouble}", flush=True)
