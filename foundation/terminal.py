import io
import sys


def accept_any_text() -> None:
    """Escape what the output's encoding does not have, such as names that are no UTF-8: never fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
