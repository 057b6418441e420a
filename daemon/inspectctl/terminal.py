import sys


def printable(text: str) -> str:
    """Escape what could move an operator's cursor; a part's name may come from a bar code."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def complain(text: str) -> None:
    """Say one line on stderr."""
    print(f"inspectctl: {printable(text)}", file=sys.stderr, flush=True)
