"""End with 1 after five faults in a row: python stop_on_faults.py tcp://127.0.0.1:5560 line3 5."""

import sys

from verdicts import LineSilent, VerdictsLost, subscribe

address, line, most = sys.argv[1:4]
in_a_row = 0
try:
    for verdict in subscribe(address, line=line):
        in_a_row = in_a_row + 1 if verdict.decision == "fault" else 0
        if in_a_row == int(most):
            sys.exit(f"stop {line}: {in_a_row} faults in a row, the last: {verdict.camera}, {verdict.reason}")
except (LineSilent, VerdictsLost) as trouble:
    sys.exit(f"stop {line}: {trouble}")
