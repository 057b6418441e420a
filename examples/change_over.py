"""Have a line judge another product: python change_over.py tcp://127.0.0.1:5561 flange."""

import sys

from verdicts import ControlRefused, ControlSilent, LineControl

address, product = sys.argv[1:3]
with LineControl(address, timeout_s=120) as control:
    try:
        print(control.select(product))
    except (ControlSilent, ControlRefused) as error:
        sys.exit(str(error))
