"""Opens an engine in a process of its own: ``python -m engine_runtime.trial ENGINE``.

Runtimes are native code, and some graphs kill them or keep them busy for ever (docs/benchmarks/fuzz.md). That
may cost a trial; it may not cost a line that is running, nor one that starts its one clear line.

An engine that was built without the GPU it is for gets here what its proof lacks.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine_runtime.signatures import TrustedKeys
from foundation.errors import EngineRefused, EngineUnavailable, InputError, Unavailable

if TYPE_CHECKING:
    from engine_runtime.engine import Engine

OPENING_TIMEOUT_S: Final = 60
"""Within which an engine must have opened, and been proven where that was not done."""
_REFUSED: Final = 2
_UNAVAILABLE: Final = 3


def try_out(path: Path, threads: int | None, trusted: TrustedKeys | None) -> None:
    """See whether an engine can be opened and warmed up without harm.

    Args:
        path: a file written by ``build-engine``.
        threads: as for ``open_engine``.
        trusted: as for ``open_engine``.

    Raises:
        EngineUnavailable: the GPU or the file is not available now, memory ran out, or it took too long.
        EngineRefused: as ``open_engine``, or its runtime crashes.
    """
    command = [sys.executable, "-m", "engine_runtime.trial", str(path)]
    command += [] if threads is None else ["--threads", str(threads)]
    command += [] if trusted is None else [f"--trusted-key={file}" for file in trusted.files]
    try:
        trial = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:  # the machine is out of processes, descriptors or memory
        raise EngineUnavailable(f"{path}: cannot be tried: {error.strerror}") from error
    match trial.returncode:
        case 0:
            return
        case code if code == _REFUSED:
            raise EngineRefused(trial.stderr.strip().rpartition("\n")[2])
        case code if code == _UNAVAILABLE:
            raise EngineUnavailable(trial.stderr.strip().rpartition("\n")[2])
        case code if code == -signal.SIGALRM:
            raise EngineUnavailable(f"{path}: did not open within {OPENING_TIMEOUT_S} s when it was tried")
        case code if code < 0:
            died_of = signal.Signals(-code).name
            # Where memory runs out, the kernel kills.
            refused = EngineUnavailable if -code == signal.SIGKILL else EngineRefused
            raise refused(f"{path}: its runtime was killed by {died_of} when it was tried")
        case code:
            said = trial.stderr.strip().rpartition("\n")[2]
            raise EngineRefused(f"{path}: its runtime ended with status {code} when it was tried: {said}")


def main() -> int:
    """Open the engine that is named, and prove it where that was not done; 2 or 3 when it is refused."""
    from engine_runtime.open import open_engine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trusted-key", type=Path, action="append")
    options = parser.parse_args()
    signal.alarm(OPENING_TIMEOUT_S)  # it ends even what hangs in native code, and needs nobody to watch
    try:
        trusted = None if options.trusted_key is None else TrustedKeys(options.trusted_key)
        engine = open_engine(options.engine, threads=options.threads, trusted=trusted)
        if not engine.manifest.proof.complete:
            _prove(options.engine, engine)
        engine.close()
    except InputError as error:
        print(error, file=sys.stderr)
        return _UNAVAILABLE if isinstance(error, Unavailable) else _REFUSED
    return 0


def _prove(path: Path, engine: "Engine") -> None:
    from engine_runtime.engine_file import read_parity
    from engine_runtime.proof import ProofFailed, prove
    from foundation.errors import EngineFailed

    frames, reference = read_parity(path, engine.manifest)
    try:
        prove(engine, reference, frames, lambda: None)
    except (ProofFailed, EngineFailed) as error:
        raise EngineRefused(
            f"{path}: its proof was not run where it was built, and fails here: {error}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
