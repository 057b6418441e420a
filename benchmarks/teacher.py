"""Compare a teacher with a random one: image AUROC on a product with known defects, all else equal.

    python benchmarks/teacher.py --data DIR [--teacher FILE] [--steps 500] [--seed 0] [--json FILE]

DIR has the MVTec AD layout: train/good, test/good, test/<defect>.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from models import training_images
from models.datasets.open import open_data_set
from models.efficientad.checkpoint import Run, load_model
from models.efficientad.networks import TEACHER_CHANNELS, pdn
from models.efficientad.teacher import load_teacher, teacher_file
from models.efficientad.train import train
from pictures.frames import Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in


def auroc(data: Path, teacher: dict[str, torch.Tensor], steps: int, seed: int) -> float:
    """Train XS at 256×256 with a teacher and give the image AUROC on the test images."""
    size = Size(256, 256)
    split = training_images.load(open_data_set(data), size, None, seed)
    run = Run("xs", size, None, steps, 1, seed, split.digest, "", None, "")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.pt"
        train(
            run,
            teacher,
            training=split.training,
            validation=split.validation,
            penalty=None,
            out=out,
            checkpoint_every=steps,
        )
        _, model = load_model(out)
    files = images_in(data / "test")
    scores = []
    with torch.inference_mode():
        for file in tqdm(files, desc="testing", unit="image"):
            frame = torch.from_numpy(fit(read_image(file), size))[None]
            scores.append(float(model(frame, model.quantiles).score))
    return float(roc_auc_score([file.parent.name != "good" for file in files], scores))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    teachers = {
        "given": load_teacher("xs", teacher_file("xs", options.teacher)),
        "random": pdn("xs", TEACHER_CHANNELS["xs"]).state_dict(),
    }
    result = {
        name: auroc(options.data, teacher, options.steps, options.seed) for name, teacher in teachers.items()
    }
    for name, value in result.items():
        print(f"{name} teacher: image AUROC {value:.4f} after {options.steps} steps")
    if options.json:
        options.json.write_text(
            json.dumps({"steps": options.steps, "seed": options.seed, "auroc": result}) + "\n"
        )


if __name__ == "__main__":
    main()
