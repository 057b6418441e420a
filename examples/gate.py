"""Eject what is not good: python gate.py tcp://127.0.0.1:5560 line3."""

import sys

from verdicts import LineSilent, VerdictsLost, subscribe

address, line = sys.argv[1:3]
verdicts = subscribe(address, line=line, decisions={"reject", "fault"})
while True:
    try:
        for verdict in verdicts:
            print(verdict.decision, verdict.camera, verdict.frame, verdict.part, flush=True)
    except VerdictsLost as loss:
        print(f"lost {loss.first} to {loss.last}: treat those parts as rejects", flush=True)
    except LineSilent:
        print(f"silent: stop {line}", flush=True)
