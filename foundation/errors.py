# InputError               what the user gave is wrong: one line, exit code 2
# ├── Unavailable          it may be right and cannot be had now: inspectd ends with exit code 1
# └── EngineRefused        an engine file that must not be executed here
#     └── EngineUnavailable    its file or its runtime cannot be had now: Unavailable, too
#         └── GpuNotWorking    its GPU does not answer
# WorkFailed               the work itself failed though the input was fine: one line, exit code 1
# ├── EngineFailed         an engine that was fine broke while running
# │   └── EngineAway           what runs it elsewhere does not answer
# ├── ProofFailed          an engine that does not compute what its graph computes (engine_runtime)
# └── TrainingFailed       a training that cannot go on (models)

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeGuard

from foundation.secrets import masked

_LONGEST = 2000


def printable(text: str) -> str:
    """Escape what would break a line or move the cursor."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class InputError(Exception):
    """What the user gave is wrong.

    ``str(error)`` is the one line the user sees: it names the file, the key where there is one, what
    was found and what was expected. Names and keys may be anything, so what would break the line or move the
    cursor is escaped, and a line without end is cut. Passwords in addresses are masked.
    """

    exit_code: ClassVar[int] = 2
    """Of ``inspectd`` when it cannot start; after 2 a service is not tried again: a person has to mend it."""

    def __str__(self) -> str:
        text = printable(masked(super().__str__())[: _LONGEST + 1])
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the file and the key that led here before what is wrong.

    Args:
        where: such as ``plant.yaml: line``.
    """
    try:
        yield
    except InputError as error:
        raise type(error)(f"{where}: {error}") from error


class Unavailable(InputError):
    """It may be right, and cannot be had now: trying again later may help.

    A disk is full, something else holds a file or an address, a mount is not there yet, memory ran out.
    """

    exit_code = 1


def refused_by_system(text: str, error: OSError) -> InputError:
    """Make the error of what the system refuses: ``Unavailable`` unless only a person can mend it.

    Args:
        text: the whole line.
        error: what the system said.
    """
    return (Unavailable if may_pass(error) else InputError)(text)


def of_system(error: OSError) -> InputError:
    """Make the error of what the system refuses, in the words of the system; names the file where it did."""
    said = error.strerror or str(error) or type(error).__name__
    names = " and ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if _is_name(name))
    return refused_by_system(f"{names}: {said}" if names else said, error)


def _is_name(name: object) -> TypeGuard[str | bytes]:
    return isinstance(name, (str, bytes))


def may_pass(error: OSError) -> bool:
    """Whether trying again later may help: a name that does not exist, or cannot, does not mend itself."""
    return error.errno not in _FOR_A_PERSON


_FOR_A_PERSON = frozenset(
    {
        *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EINVAL, errno.EILSEQ, errno.EXDEV, errno.EFBIG, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT),
    }
)


class EngineRefused(InputError):
    """The engine file is damaged, foreign or made for another machine; nothing of it was executed."""


class EngineUnavailable(EngineRefused, Unavailable):
    """The engine file cannot be read, or its runtime cannot be started, as the machine is now."""


class GpuNotWorking(EngineUnavailable):
    """The GPU that the engine needs does not answer.

    At boot, say, while its driver is not there yet, or after an upgrade of that: trying again later may help.
    """


class WorkFailed(Exception):
    """The input was fine, and the work itself failed; ``str(error)`` is the one line the user sees."""

    def __str__(self) -> str:
        return printable(super().__str__())


class EngineFailed(WorkFailed):
    """The runtime raised while it judged frames; the engine must be opened anew."""


class EngineAway(EngineFailed):
    """What runs the engine elsewhere does not answer in time; it is asked again with the next frames."""
