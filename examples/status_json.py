"""Print the whole health as JSON, for another program: python status_json.py tcp://127.0.0.1:5561."""

import json
import sys
from dataclasses import asdict

from verdicts import ControlRefused, ControlSilent, LineControl

with LineControl(sys.argv[1]) as control:
    try:
        print(json.dumps(asdict(control.status()), indent=2))
    except (ControlSilent, ControlRefused) as error:
        sys.exit(str(error))
