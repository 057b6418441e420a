"""Gives the peer a virtual environment of its own: its dependencies are not ours."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import write_whole

ANOMALIB = "2.7.0"
TORCH, TORCHVISION = "2.13.0", "0.28.0"
"""torchvision 0.28 is the one made for torch 2.13."""


class InstallFailed(Exception):
    """pip ended with an error; the line says where its output lies."""


def steps() -> list[list[str]]:
    """Give what pip is asked to install, in order: the runtimes in the versions that our side uses.

    torchvision's wheels on PyPI ask for the CUDA build of torch, gigabytes that no inference on a CPU needs.
    So torch comes first, in whichever build pip finds, and torchvision without its dependencies.
    """
    runtimes = [f"{package}=={version(package)}" for package in ("openvino", "onnxruntime", "numpy")]
    return [
        [f"torch=={TORCH}"],
        ["--no-deps", f"torchvision=={TORCHVISION}"],
        [f"anomalib[openvino]=={ANOMALIB}", *runtimes],
    ]


def install(folder: Path) -> Path:
    """Make the environment unless it is there, and give its Python.

    Args:
        folder: of the virtual environment; some 2 GB with torch's CPU build, over 6 GB with CUDA.

    Raises:
        InputError: the folder holds something else, or cannot be made.
        InstallFailed: pip failed.
    """
    python, done = folder / "bin/python", folder / "peer.json"
    wanted = json.dumps(steps())
    if done.is_file() and done.read_text() == wanted:
        return python
    log = folder / "install.log"
    if not (folder / "pyvenv.cfg").is_file() and any(path != log for path in folder.glob("*")):
        raise InputError(
            f"{folder}: is no virtual environment; expected one, or a folder that does not exist"
        )
    commands = [[sys.executable, "-m", "venv", str(folder)]]
    commands += [[str(python), "-m", "pip", "install", *packages] for packages in steps()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            for command in tqdm(commands, desc=f"installing anomalib {ANOMALIB}, minutes", unit="step"):
                if subprocess.run(command, stdout=output, stderr=output, check=False).returncode != 0:
                    raise InstallFailed(f"{' '.join(command)} failed; what it said is in {log}")
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    write_whole(done, wanted.encode())
    return python
