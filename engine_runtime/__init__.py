"""What runs an engine."""

import os
import sys

# Both runtimes would report their use to their makers, and write an identity of this machine into the user's
# home at their mere import. What a line inspects, and when, is nobody else's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO does without it then
