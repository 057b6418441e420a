"""Holds `import-anomalib` against anomalib itself, with random weights: both sizes, padding, borders, files.

    python benchmarks/anomalib_import.py

It needs a Python with anomalib and inspectd; nothing is downloaded.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from models.commands import import_anomalib

sys.path.append(str(Path(__file__).parent))
from peer.child import declare_missing_operators

VARIANTS = [(False, True), (True, True), (False, False)]
"""Padding of the networks, padding of the maps."""
SIDE = 256
LIMIT = 1e-3


def main() -> int:
    """Compare each variant and print how far scores and maps are apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["small", "medium"], choices=["small", "medium"])
    declare_missing_operators()
    worst = 0.0
    print(f"{'size':8}{'padding':>9}{'pad_maps':>10}{'file':>7}{'score':>12}{'map':>12}")
    for size in parser.parse_args().sizes:
        for padding, pad_maps in VARIANTS:
            with TemporaryDirectory() as folder:
                for kind, score, anomaly_map in compared(size, padding, pad_maps, Path(folder)):
                    print(f"{size:8}{padding!s:>9}{pad_maps!s:>10}{kind:>7}{score:12.1e}{anomaly_map:12.1e}")
                    worst = max(worst, score)
    print(f"largest difference of a score {worst:.1e}; at most {LIMIT:.0e} is allowed")
    return int(worst > LIMIT)


def compared(size: str, padding: bool, pad_maps: bool, folder: Path) -> list[tuple[str, float, float]]:
    """Give the kind of file, the difference of the scores and that of the maps."""
    from anomalib.models import EfficientAd  # type: ignore[import-not-found]
    from lightning.pytorch import Trainer  # type: ignore[import-not-found]

    torch.manual_seed(0)
    module = EfficientAd(
        model_size=size, padding=padding, pad_maps=pad_maps, evaluator=False, visualizer=False
    ).eval()
    frames = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    frames[1] = frames[1].cumsum(1, dtype=np.int64) % 256 // 2
    planes = torch.from_numpy(frames[..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.inference_mode():
        set_statistics(module.model, planes)
        theirs = module.model(planes)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "model.ckpt")
    files = {"ckpt": folder / "model.ckpt", "pt": Path(module.to_torch(folder))}
    found = []
    for kind, file in files.items():
        assert import_anomalib([str(file), "--out", str(folder / f"{kind}.onnx")]) == 0
        session = onnxruntime.InferenceSession(folder / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        named = session.get_modelmeta().custom_metadata_map["training_quantiles"]
        quantiles = np.array(named.split(","), dtype=np.float32).reshape(2, 2)
        score, anomaly_map = session.run(["score", "anomaly_map"], {"frames": frames, "quantiles": quantiles})
        apart = np.abs(score - theirs.pred_score.numpy().ravel()).max()
        found.append(
            (kind, float(apart), float(np.abs(anomaly_map - theirs.anomaly_map.numpy()[:, 0]).max()))
        )
    return found


def set_statistics(model: Any, planes: torch.Tensor) -> None:
    """Set what training would: mean and deviation of the teacher, quantiles of the maps."""
    features = model.teacher(planes)
    model.mean_std["mean"].copy_(features.mean((0, 2, 3), keepdim=True))
    model.mean_std["std"].copy_(features.std((0, 2, 3), keepdim=True))
    for kind, maps in zip(("st", "ae"), model.get_maps(planes), strict=True):
        model.quantiles[f"qa_{kind}"].fill_(maps.quantile(0.9))
        model.quantiles[f"qb_{kind}"].fill_(maps.quantile(0.995))


if __name__ == "__main__":
    sys.exit(main())
