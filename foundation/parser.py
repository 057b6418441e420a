import argparse
from typing import NoReturn

from foundation.errors import printable


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong with it is one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}\n")
