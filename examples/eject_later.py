"""Fire a gate when the part has reached it: python eject_later.py tcp://127.0.0.1:5560 line3 1.25.

The last argument is the belt's time from the camera to the gate in seconds. What has no pass is ejected.
"""

import sys
import threading
from datetime import UTC, datetime

from verdicts import LineSilent, VerdictsLost, subscribe

address, line, belt_s = sys.argv[1:4]
verdicts = subscribe(address, line=line, decisions={"reject", "fault"})
while True:
    try:
        for verdict in verdicts:
            age_s = (datetime.now(UTC) - datetime.fromisoformat(verdict.captured_at)).total_seconds()
            fire = threading.Timer(
                max(0.0, float(belt_s) - age_s),
                print,
                [f"eject {verdict.camera} {verdict.frame}"],
                {"flush": True},
            )
            fire.start()
    except (LineSilent, VerdictsLost) as trouble:
        print(f"eject everything: {trouble}", flush=True)
