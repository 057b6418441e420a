"""Count decisions of each camera: python count_by_camera.py tcp://127.0.0.1:5560 line3."""

import sys
from collections import Counter

from verdicts import LineSilent, VerdictsLost, subscribe

address, line = sys.argv[1:3]
counts: Counter[tuple[str, str]] = Counter()
verdicts = subscribe(address, line=line)
while True:
    try:
        for verdict in verdicts:
            counts[verdict.camera, verdict.decision] += 1
    except VerdictsLost as loss:
        print(f"not counted: {loss.first} to {loss.last}")
    except LineSilent:
        break
for (camera, decision), count in sorted(counts.items()):
    print(f"{camera:<12} {decision:<7} {count}")
