"""Libraries that put one function of the system out of order for one daemon."""

from pathlib import Path

from c_library import c_library


def built(source: str, folder: Path) -> str:
    """Compile a C file that lies here, and give the library's path, for ``LD_PRELOAD``."""
    file = Path(__file__).with_name(source)
    return str(c_library(file, folder / file.with_suffix(".so").name))
