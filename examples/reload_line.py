"""Have a line read its config again: python reload_line.py tcp://127.0.0.1:5561."""

import sys

from verdicts import ControlRefused, ControlSilent, LineControl

with LineControl(sys.argv[1], timeout_s=120) as control:
    try:
        print(control.reload())
    except (ControlSilent, ControlRefused) as error:
        sys.exit(str(error))
