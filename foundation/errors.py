# InputError               what the user gave is wrong: one line, exit code 2
# └── EngineRefused        an engine file that must not be executed here
#     └── GpuNotWorking    its GPU does not answer, which may pass: inspectd ends with exit code 1
# EngineFailed             an engine that was fine broke while running


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

    def __str__(self) -> str:
        text = printable(masked(super().__str__())[: _LONGEST + 1])
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class EngineRefused(InputError):
    """The engine file is damaged, foreign or made for another machine; nothing of it was executed."""


class GpuNotWorking(EngineRefused):
    """The GPU that the engine needs does not answer.

    At boot, say, while its driver is not there yet, or after an upgrade of that: trying again later may help.
    """


class EngineFailed(Exception):
    """The runtime raised while it judged frames; the engine must be opened anew."""
