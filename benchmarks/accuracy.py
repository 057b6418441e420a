"""How well ours, the peer and a reference find defects, on the same pictures with the same steps.

    python benchmarks/accuracy.py --data DIR [DIR …] --natural DIR --out FOLDER
        --backbone FILE --json docs/benchmarks/accuracy.json --markdown docs/benchmarks/accuracy.md

Every DIR is one product, in a layout that `efficientad evaluate` knows. An object of MVTec LOCO without good
test images is tested with those for validation. `--methods` chooses among

  padim    ours, PaDiM, as `train-model --method padim` fits it
  padim10  the same with ten good images
  patchcore ours, PatchCore, as `train-model --method patchcore` fits it
  xs       ours, XS
  s        ours, S
  m        ours, M, with a teacher of yours
  xs-paper ours, XS, with the paper's two maps alone
  s-paper  likewise S
  xs-lite0 ours, XS, with EfficientNet-Lite 0 itself as the teacher
  s-lite0  likewise S
  anomalib anomalib's EfficientAd, small, with the teacher of ours, in an environment of its own
  anomalib-lite0 likewise, with EfficientNet-Lite 0 itself as the teacher
  nearest  nearest neighbours among the features of the backbone from which the teachers were distilled

A GPU is used where there is one. What is finished stands in the JSON file, and is not measured again: a run
that was cut off goes on where it stopped, with another method or product the table grows, here or on another
machine. FOLDER is for models and the state of a training.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would cost what the peer's need

from detection.command_line import as_shown
from detection.page import as_markdown
from detection.task import Method, Task
from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import write_whole
from foundation.option_types import whole_number
from models.option_types import SIZES

if TYPE_CHECKING:  # they import torch
    from detection.ours import Ours

    from models.evaluation.evaluate import Judged

WITHOUT_ASKING = ("padim", "padim10", "patchcore", "xs", "s", "anomalib", "nearest")
BACKBONE = "lite0"
METHODS = (*WITHOUT_ASKING, "m", "xs-paper", "s-paper", "xs-lite0", "s-lite0", "anomalib-lite0")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    options = parser().parse_args(argv)
    from peer.client import PeerFailed
    from peer.install import InstallFailed

    try:
        run(options, as_shown("accuracy.py", sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"accuracy.py: {error}", file=sys.stderr)
        return 2
    except (InstallFailed, PeerFailed) as error:
        print(f"accuracy.py: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace, command: str) -> None:
    """Fill every cell of the table; the table is written again after each."""
    from detection.held_back import with_good_test
    from detection.ours import SIZE

    from models import training_images
    from models.datasets.open import open_data_set

    methods = chosen_methods(options)
    cells = finished(options.json, options.steps)
    natural = training_images.load_natural(options.natural, SIZE)
    tasks = [
        (data, seed, method) for data in options.data for seed in range(options.seeds) for method in methods
    ]
    for data, seed, method in tqdm(tasks, desc="accuracy", unit="cell"):
        folder = options.out / data.name
        folder.mkdir(parents=True, exist_ok=True)
        data_set = open_data_set(with_good_test(data, folder / "held-back"))
        task = Task(
            data_set,
            training_images.load(data_set, SIZE, None, seed),
            natural,
            options.steps,
            seed,
            folder,
        )
        settings = {**method.settings, "method": method.name, **task.settings}
        if settings not in [cell["settings"] for cell in cells]:
            cells = [cell for cell in cells if place(cell["settings"]) != place(settings)]
            cells.append({"command": command, "settings": settings, **measured(method, task)})
        cells.sort(key=lambda cell: place(cell["settings"]))
        content = {"date": datetime.now(UTC).date().isoformat(), "steps": options.steps, "cells": cells}
        write(options.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write(options.markdown, as_markdown(content))
    print(as_markdown(content))


def chosen_methods(options: argparse.Namespace) -> list[Method]:
    """Make the methods that were asked for.

    Raises:
        InputError: one of them needs a file that was not given.
    """
    from detection.features import FromFeatures
    from detection.nearest import Nearest
    from detection.peers import AnomalibS

    from models.efficientad.teacher import teacher_file

    made: list[Method] = []
    for name in options.methods:
        if name in {"padim", "patchcore"}:
            made.append(FromFeatures(name, options.threads))
        elif name == "padim10":
            made.append(FromFeatures("padim", options.threads, images=10))
        elif name.partition("-")[0] in SIZES:
            made.append(efficientad(name, options))
        elif name.partition("-")[0] == "anomalib":
            from peer.install import install

            given = teacher_file("s", options.teacher_s) if name == "anomalib" else Path(BACKBONE)
            peer = AnomalibS(install(options.peer_venv), given, options.threads)
            _ = peer.opened  # a teacher that cannot be loaded is refused before the work
            made.append(peer)
        elif options.backbone is None:
            raise InputError("--methods nearest: needs --backbone FILE")
        else:
            made.append(Nearest(options.backbone, options.threads))
    return made


def efficientad(name: str, options: argparse.Namespace) -> "Ours":
    """Make EfficientAD of a size, with a backbone as its teacher or with the paper's maps."""
    from detection.ours import Ours

    from models.efficientad.networks import SIZES as SIZE_OF

    called, _, kind = name.partition("-")
    [size] = [known for known in SIZE_OF if known == called]
    given: Path | None = getattr(options, f"teacher_{size}")
    method = Ours(size, Path(kind) if kind == BACKBONE else given, kind == "paper")
    _ = method.opened  # a teacher that cannot be loaded is refused before the work
    return method


def finished(path: Path, steps: int) -> list[dict[str, Any]]:
    """Read the cells of a table that were measured with as many steps.

    Raises:
        InputError: the file is not such a table.
    """
    if not path.exists():
        return []
    try:
        cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
        return [cell for cell in cells if cell["settings"]["steps"] == steps]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a table that accuracy.py has written") from error


def place(settings: dict[str, Any]) -> tuple[str, str, int]:
    """Give where a cell stands: methods and products in the order of their names."""
    return settings["method"], settings["data"], settings["seed"]


def measured(method: Method, task: Task) -> dict[str, Any]:
    """Let a method learn, and judge the test images."""
    from models.evaluation.evaluate import evaluate

    began_before = method.was_cut_off(task)
    started = time.monotonic()
    with method.learn(task) as judge:
        learned_s = None if began_before else round(time.monotonic() - started, 1)
        evaluation = evaluate(judge, task.data_set, draws=0)  # the seeds give the spread
    overall = evaluation.overall
    overlap = overall.overlap.get(0.3)
    return {
        "device": device(),
        "learned_in_s": learned_s,
        "images": {"training": len(task.split.training), "test": len(evaluation.judged.samples)},
        "image_auroc": overall.image_auroc.value,
        "pixel_auroc": None if overall.pixel_auroc is None else overall.pixel_auroc.estimate.value,
        "caught_at_1_percent": caught(evaluation.judged, 0.01),
        "au_pro": None if overlap is None else overlap.estimate.value,
        "by_defect": {name: metrics.image_auroc.value for name, metrics in evaluation.by_defect.items()},
    }


def caught(judged: "Judged", rate: float) -> float:
    """Give the share of defects above the score that so many of the good test images exceed."""
    import numpy as np

    limit = np.quantile(judged.scores[~judged.defective], 1 - rate, method="higher")
    return float((judged.scores[judged.defective] > limit).mean())


def device() -> str:
    """Name what the networks run on."""
    import torch

    from engine_build.device import cpu_name

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


def write(path: Path | None, content: str) -> None:
    if path is not None:
        write_whole(path, content.encode())


positive = whole_number(1)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="accuracy.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[about_methods()],
    )
    made.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one product each")
    made.add_argument("--natural", type=Path, required=True, metavar="DIR", help="images of anything else")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for models")
    made.add_argument("--steps", type=positive, default=2000, help="of each training (default: %(default)s)")
    made.add_argument("--seeds", type=positive, default=1, help="trainings of each (default: %(default)s)")
    made.add_argument("--json", type=Path, required=True, metavar="FILE", help="of the table, which grows")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    return made


def about_methods() -> argparse.ArgumentParser:
    """Give the options that say what is measured: which methods, and what they need."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument(
        "--methods", type=names, default=WITHOUT_ASKING, help=f"default: {','.join(WITHOUT_ASKING)}"
    )
    made.add_argument("--teacher-xs", type=Path, metavar="FILE", help="default: the packaged one")
    made.add_argument("--teacher-s", type=Path, metavar="FILE", help="likewise, for ours and the peer's")
    made.add_argument("--teacher-m", type=Path, metavar="FILE", help="none is packaged")
    made.add_argument("--backbone", type=Path, metavar="FILE", help="ONNX, for the nearest neighbours")
    made.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)))
    made.add_argument("--peer-venv", type=Path, default=Path("/tmp/peer-venv"), metavar="DIR")
    return made


def names(text: str) -> Sequence[str]:
    found = text.split(",")
    for name in found:
        if name not in METHODS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(METHODS)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
