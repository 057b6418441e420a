# InputError          what the user gave is wrong: one line, exit code 2
# └── EngineRefused   an engine file that must not be executed here
# EngineFailed        an engine that was fine broke while running


class InputError(Exception):
    """What the user gave is wrong.

    ``str(error)`` is the one line the user sees: it names the file, the key where there is one, what
    was found and what was expected.
    """


class EngineRefused(InputError):
    """The engine file is damaged, foreign or made for another machine; nothing of it was executed."""


class EngineFailed(Exception):
    """The runtime raised while it judged frames; the engine must be opened anew."""
