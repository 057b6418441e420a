"""A line's folder, a repository beside it, and what ``inspectctl release`` and ``update`` say."""

from pathlib import Path
from subprocess import CompletedProcess

from brightness import THRESHOLD
from in_process import run

from calibration.calibration_file import read_calibration, write_calibration
from daemon.inspectctl.cli import main


def inspectctl(*arguments: object) -> CompletedProcess[str]:
    """Run the command, in this process."""
    return run(main, *arguments)


class Desk:
    """Where releases are made: a copy of the line's folder, keys, and a repository."""

    def __init__(self, folder: Path, line_folder: Path, config: Path) -> None:
        self.folder = folder / "desk"
        self.folder.mkdir()
        for name in ("brightness.engine", "brightness.calibration.yaml"):
            (self.folder / name).write_bytes((line_folder / name).read_bytes())
        self.config = self.folder / config.name
        self.config.write_bytes(config.read_bytes())
        self.repository, self.keys = folder / "repository", folder / "keys"
        self.release("init")

    @property
    def root(self) -> Path:
        return self.repository / "root.json"

    def release(self, action: str, *arguments: object) -> str:
        """Run ``inspectctl release`` to its good end."""
        done = inspectctl("release", action, "--repository", self.repository, "--keys", self.keys, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def make(self, threshold: float = THRESHOLD) -> str:
        """Put in a release whose calibration has this threshold."""
        file = self.folder / "brightness.calibration.yaml"
        write_calibration(file, read_calibration(file).model_copy(update={"threshold": threshold}))
        return self.release("make", self.config)


def threshold_of(config: Path) -> float:
    """Give the threshold by which the line of a config judges, or would when it starts."""
    return read_calibration(config.parent / "brightness.calibration.yaml").threshold
