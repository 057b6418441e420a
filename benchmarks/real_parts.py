"""Train, export, build, calibrate and inspect with photographs of real parts in the layout of MVTec AD.

    python benchmarks/real_parts.py --data DIR

takes the images under DIR/train/good for training and calibration and sends those under DIR/test through a
running inspectd. No test image is seen before that.
"""

import argparse
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import yaml
from inspection import Inspection, command, split, summary

from pictures.image_folder import images_in

HELD_OUT = 0.3
"""Share of the good images that are kept from training, for calibration."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds train/good and test")
    parser.add_argument("--method", default="padim", help="of train-model (default: %(default)s)")
    parser.add_argument("--size", choices=("xs", "s", "m"), default="xs", help="efficientad: of the networks")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help="efficientad: needed for s and m")
    parser.add_argument("--steps", type=int, default=1000, help="efficientad: of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", default="256", help="N or HxW (default: %(default)s)")
    parser.add_argument("--false-reject-rate", type=float, default=0.01, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep model, engine and pictures here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = inspect(options, options.out or Path(temporary))
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def inspect(options: argparse.Namespace, out: Path) -> dict[str, object]:
    """Go the whole way and give the figures."""
    out.mkdir(parents=True, exist_ok=True)
    good = images_in(options.data / "train/good")
    held_out = round(HELD_OUT * len(good))
    split(good, {out / "train": len(good) - held_out, out / "held-out": held_out})
    settings: list[object] = ["--image-size", options.image_size, "--seed", options.seed]
    if options.method == "efficientad":
        settings += ["--size", options.size, "--steps", options.steps]
        settings += ["--teacher", options.teacher] if options.teacher else []
    command("train-model", "--data", out / "train", "--method", options.method, "--out", out / "part.onnx",
            *settings)  # fmt: skip
    command("build-engine", out / "part.onnx", "--fast")
    command("calibrate", out / "part.engine", "--good", out / "held-out",
            "--false-reject-rate", options.false_reject_rate)  # fmt: skip
    shutil.rmtree(out / "rejects", ignore_errors=True)
    config = out / "line.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "line": "real-parts",
                "engine": "part.engine",
                "calibration": "part.calibration.yaml",
                "publish": f"ipc://{tempfile.mkdtemp()}/verdicts",
                "deadline_ms": 60_000,
                "archive": {"folder": "rejects"},
                "cameras": {"test": {"source": str((options.data / "test").resolve()), "waiting": 1}},
            }
        )
    )
    print(f"\n$ inspectd --config {config}", flush=True)
    inspection = Inspection(config)
    inspection.wait()
    result = summary(inspection, lambda part: not part.startswith("good/"))
    kinds = Counter(_kind(verdict.part) for verdict in inspection.verdicts)
    rejected = Counter(_kind(verdict.part) for verdict in inspection.verdicts if verdict.decision == "reject")
    return {
        "data": options.data.name,
        "method": options.method,
        "size": options.size if options.method == "efficientad" else None,
        "image_size": options.image_size,
        "steps": options.steps if options.method == "efficientad" else None,
        "seed": options.seed,
        "false_reject_rate": options.false_reject_rate,
        **result,
        "rejected_by_kind": {kind: f"{rejected[kind]} of {kinds[kind]}" for kind in sorted(kinds)},
    }


def _kind(part: str | None) -> str:
    return Path(part or "").parent.as_posix()


if __name__ == "__main__":
    main()
