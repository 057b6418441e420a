"""What commands need that not every line has installed."""

from importlib.util import find_spec

from foundation.errors import InputError


def require_tuf(command: str) -> None:
    """Say in one line that the packages for releases are missing.

    Raises:
        InputError: they are missing.
    """
    for module in ("tuf", "cryptography"):
        if find_spec(module) is None:
            raise InputError(f"{command}: {module} is not installed; expected pip install 'inspectd[update]'")
