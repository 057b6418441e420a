"""Lines of a GPIO chip, asked of the kernel: for triggers, encoders and gates."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from foundation.errors import InputError, refused_by_system

if TYPE_CHECKING:
    import gpiod


def request_lines(
    chip: str,
    key: str,
    lines: "dict[Iterable[int | str] | int | str, gpiod.LineSettings | None]",
    *,
    consumer: str,
) -> "gpiod.LineRequest":
    """Ask the kernel for lines of a chip; it takes them back when the process ends.

    Args:
        chip: such as ``/dev/gpiochip0``.
        key: of the config, for what is said about mistakes.
        lines: numbers or names, and how they are used.
        consumer: what others read who ask the kernel who has a line.

    Raises:
        InputError: there is no such chip or line, or something else has it.
    """
    import gpiod

    try:
        return gpiod.request_lines(chip, consumer=consumer, config=lines)
    except OSError as error:
        text = f"{key}: {chip} cannot be had: {error.strerror or error}"
        raise refused_by_system(text, error) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: {chip} cannot be had: {error}") from error
