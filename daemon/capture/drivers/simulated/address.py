"""What follows the ``?`` in the address of a simulated camera."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from daemon.capture.drivers.simulated.trouble import Trouble
from foundation.errors import InputError

_EXPECTED: Final[Mapping[object, str]] = {int: "a whole number", float: "a number"}


def read_options(
    address: str, kinds: Mapping[str, Callable[[str], Any]]
) -> tuple[dict[str, Any], list[Trouble]]:
    """Read the options and the troubles that an address asks for.

    Args:
        address: such as ``simulated://?seed=1&trouble=black@100``.
        kinds: name of an option → what reads its text, ``int``, ``float`` or what takes any text.

    Raises:
        InputError: an option is unknown, or its text is of another kind.
    """
    options: dict[str, Any] = {}
    troubles: list[Trouble] = []
    for name, text in parse_qsl(urlsplit(address).query, keep_blank_values=True):
        if name == "trouble":
            try:
                troubles.append(Trouble.parse(text))
            except InputError as error:
                raise InputError(f"{address}: {error}") from error
            continue
        if name not in kinds:
            raise InputError(f"{address}: unknown option {name}; expected one of {', '.join(kinds)}, trouble")
        try:
            options[name] = kinds[name](text)
        except ValueError as error:
            raise InputError(f"{address}: {name} is {text!r}; expected {_EXPECTED[kinds[name]]}") from error
    return options, troubles
