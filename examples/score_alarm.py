"""Warn when good parts come near the threshold: python score_alarm.py tcp://127.0.0.1:5560 line3 0.8.

The last argument is a share of the threshold. The mean runs over about the last hundred passes of a camera.
"""

import sys

from verdicts import LineSilent, subscribe

address, line, share = sys.argv[1:4]
means: dict[str, float] = {}
try:
    for verdict in subscribe(address, line=line, decisions={"pass"}):
        if verdict.score is None or verdict.threshold is None:
            continue
        before = means.get(verdict.camera, verdict.score)
        means[verdict.camera] = mean = before + (verdict.score - before) / 100
        if mean > float(share) * verdict.threshold:
            print(f"{verdict.camera}: passing parts score {mean:.3f} of {verdict.threshold:.3f}", flush=True)
except LineSilent as silent:
    sys.exit(str(silent))
