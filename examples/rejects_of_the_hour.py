"""List the rejects of the last hour from the journal: python rejects_of_the_hour.py tcp://127.0.0.1:5561."""

import sys
from datetime import UTC, datetime, timedelta

from verdicts import ControlSilent, LineControl

with LineControl(sys.argv[1]) as control:
    try:
        for verdict in control.replay_since(datetime.now(UTC) - timedelta(hours=1)):
            if verdict.decision == "reject":
                print(f"{verdict.captured_at} {verdict.camera} {verdict.score:.3f} {verdict.archive or ''}")
    except ControlSilent as silent:
        sys.exit(str(silent))
