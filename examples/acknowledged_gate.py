"""Eject what is not good, and miss nothing: python acknowledged_gate.py tcp://127.0.0.1:5561 line3 gate."""

import sys

from verdicts import LineSilent, VerdictsLost, acknowledged

control, line, name = sys.argv[1:4]
verdicts = acknowledged(control, line=line, name=name, decisions={"reject", "fault"})
while True:
    try:
        for verdict in verdicts:  # asking for the next one acknowledges the one before
            print(verdict.decision, verdict.camera, verdict.frame, verdict.part, flush=True)
    except VerdictsLost as loss:
        print(f"lost {loss.first} to {loss.last}: treat those parts as rejects", flush=True)
    except LineSilent:
        print(f"silent: stop {line}", flush=True)
