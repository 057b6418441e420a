"""Write each verdict into a CSV file: python csv_log.py tcp://127.0.0.1:5560 line3 verdicts.csv."""

import csv
import sys
from pathlib import Path

from verdicts import LineSilent, subscribe

address, line, path = sys.argv[1:4]
with Path(path).open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["captured_at", "camera", "frame", "part", "decision", "reason", "score", "threshold"])
    try:
        for v in subscribe(address, line=line):
            rows.writerow(
                [v.captured_at, v.camera, v.frame, v.part, v.decision, v.reason, v.score, v.threshold]
            )
            file.flush()
    except LineSilent:
        print(f"{line} is silent: {path} ends here")
