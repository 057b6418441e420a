"""What the ``main`` of every command does alike: how it ends, and what it says when it cannot go on.

Scripts import this before anything else, so it imports little itself: from here on Ctrl-C ends in one line.
"""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_OF_BUILD = ("onnx", "scipy")
"""Packages of the extra ``build``: a line that only inspects does not need them."""


def run_command(prog: str, work: Callable[[], int], *, ends_unread: bool = False) -> int:
    """Do the work of a command; what goes wrong is one line on stderr.

    Args:
        prog: name of the command.
        work: gives the exit code. It may raise ``InputError``, ``WorkFailed``, ``OSError``, or
            ``KeyboardInterrupt`` with the words that are to be said of it.
        ends_unread: the command is done when nobody reads its output any more. Without it the output is
            dropped and the work goes on: a training is not lost with the pipe that shows its progress.

    Returns:
        The exit code: that of ``work``; 2 when the user has to mend something; 1 when the work failed or
        trying again later may help; 130 after Ctrl-C.
    """
    outer_hook = sys.unraisablehook
    try:
        from foundation.terminal import accept_any_text, drop_unread

        accept_any_text()
        if not ends_unread:
            drop_unread()
        sys.unraisablehook = _interrupt_again
        try:
            return work()
        finally:
            _flush(sys.stdout)
    except KeyboardInterrupt as stop:
        _end_at_once_next_time()
        _say(prog, str(stop) or "interrupted")
        return 130
    except BrokenPipeError as error:
        if not ends_unread:
            return _told(prog, error)
        _close(1)
        return 0
    except Exception as error:
        return _told(prog, error)
    finally:
        sys.unraisablehook = outer_hook


def _told(prog: str, error: Exception) -> int:
    """Say what went wrong and give the exit code; raise again what is a fault of ours."""
    from foundation.errors import InputError, WorkFailed, of_system

    if isinstance(error, OSError):
        error = of_system(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _OF_BUILD:
        error = InputError(f"{error.name} is not installed; expected inspectd with [build]")
    if not isinstance(error, (InputError, WorkFailed, MemoryError)):
        raise error
    _say(prog, "memory ran out" if isinstance(error, MemoryError) else str(error))
    return error.exit_code if isinstance(error, InputError) else 1


def _say(prog: str, text: str) -> None:
    from contextlib import suppress

    with suppress(OSError):
        # On a terminal ^C and perhaps a progress bar stand in the line.
        start = "\n" if text.startswith("interrupted") and sys.stderr.isatty() else ""
        print(f"{start}{prog}: {text}", file=sys.stderr, flush=True)


def _flush(stream: TextIO | None) -> None:
    """Write what is left now, where it can still be told that it fails."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except BrokenPipeError:
        _close(1)
        raise
    except OSError as error:
        _close(1)
        raise OSError(error.errno, error.strerror, "standard output") from error


def _close(descriptor: int) -> None:
    """Let what is still to be written to a descriptor vanish, so that nothing fails at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _end_at_once_next_time() -> None:
    """Have a second Ctrl-C end the process without a word, as its threads may take a while to end."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt_again(unraisable: "UnraisableHookArgs") -> None:
    """Repeat an interrupt that fell into a finaliser or an import's callback, where nothing can be raised."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        import signal
        import threading

        main = threading.main_thread().ident
        again = threading.Timer(0.02, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
