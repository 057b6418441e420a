# InputError          what the user gave is wrong: one line, exit code 2
# └── EngineRefused   an engine file that must not be executed here
# EngineFailed        an engine that was fine broke while running


_LONGEST = 2000


class InputError(Exception):
    """What the user gave is wrong.

    ``str(error)`` is the one line the user sees: it names the file, the key where there is one, what
    was found and what was expected. Names and keys may be anything, so what would break the line or move the
    cursor is escaped, and a line without end is cut.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if not text.isprintable():
            text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_LONGEST])
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class EngineRefused(InputError):
    """The engine file is damaged, foreign or made for another machine; nothing of it was executed."""


class EngineFailed(Exception):
    """The runtime raised while it judged frames; the engine must be opened anew."""
