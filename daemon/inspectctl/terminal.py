import sys

from foundation.errors import printable


def complain(text: str) -> None:
    """Say one line on stderr."""
    print(f"inspectctl: {printable(text)}", file=sys.stderr, flush=True)
