"""Holds what is taken over from anomalib against anomalib itself, with random weights.

    python benchmarks/anomalib_import.py

Checkpoints by `import-anomalib`: both sizes, with and without padding and borders, both kinds of files.
Exports to OpenVINO: full and half precision, a fixed and a free size of the image, EfficientAD and PaDiM.

It needs a Python with anomalib and inspectd; nothing is downloaded.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch

from engine_build.graph import read_graph
from models.commands import import_anomalib

sys.path.append(str(Path(__file__).parent))
from peer.child import declare_missing_operators

VARIANTS = [(False, True), (True, True), (False, False)]
"""Padding of the networks, padding of the maps."""
PARTS = ("checkpoints", "exports")
SIDE = 256
LIMIT = 1e-3


def main() -> int:
    """Compare each variant and print how far scores and maps are apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["small", "medium"], choices=["small", "medium"])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    options = parser.parse_args()
    declare_missing_operators()
    worst = 0.0
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "checkpoints" in options.parts:
            print(f"{'size':8}{'padding':>9}{'pad_maps':>10}{'file':>7}{'score':>12}{'map':>12}")
            for size, (padding, pad_maps) in product(options.sizes, VARIANTS):
                for kind, score, apart in compared(size, padding, pad_maps, folder):
                    print(f"{size:8}{padding!s:>9}{pad_maps!s:>10}{kind:>7}{score:12.1e}{apart:12.1e}")
                    worst = max(worst, score)
        if "exports" in options.parts:
            print(f"{'export':34}{'map':>12}")
            for kind, apart in exports(folder):
                print(f"{kind:34}{apart:12.1e}")
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


def exports(folder: Path) -> list[tuple[str, float]]:
    """Give how far the maps of exports to OpenVINO are apart, as a share of the largest value."""
    from anomalib.models import EfficientAd, Padim

    torch.manual_seed(0)
    frames = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    planes = torch.from_numpy(frames[..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255
    efficientad = EfficientAd(model_size="small", evaluator=False, visualizer=False).eval()
    padim = Padim(
        backbone="resnet18",
        layers=["layer1", "layer2"],
        pre_trained=False,
        n_features=30,
        pre_processor=Padim.configure_pre_processor((SIDE, SIDE)),
        evaluator=False,
        visualizer=False,
    ).eval()
    cells = (SIDE // 4) ** 2
    padim.model.gaussian.mean = torch.randn(30, cells) * 0.1
    padim.model.gaussian.inv_covariance = torch.eye(30).expand(cells, 30, 30).clone()
    with torch.inference_mode():
        set_statistics(efficientad.model, planes)
    found = []
    for name, module in (("EfficientAD", efficientad), ("PaDiM", padim)):
        with torch.inference_mode():
            images = module.pre_processor(planes) if name == "PaDiM" else planes
            raw = module.model(images).anomaly_map.numpy()[:, 0]
        post = module.post_processor
        for kind in ("image", "pixel"):  # a scale that changes nothing: the map itself is compared
            getattr(post, f"{kind}_min").fill_(0.0)
            getattr(post, f"{kind}_max").fill_(1.0)
            getattr(post, f"_{kind}_threshold").fill_(0.5)
        full = Path(module.to_openvino(folder / name, input_size=(SIDE, SIDE)))
        half, free = folder / f"{name}.half.xml", None
        # What anomalib does with CompressionType.FP16, without exporting once more.
        openvino.save_model(openvino.Core().read_model(full), half, compress_to_fp16=True)
        if module is efficientad:
            free = Path(module.to_openvino(folder / f"{name}.free"))
        for kind, path in (("", full), (", half precision", half), (", free size", free)):
            if path is None:
                continue
            graph = read_graph(path)
            session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
            quantiles = np.array([[0, 0.1]], dtype=np.float32)
            [ours] = session.run([graph.maps["local"]], {"frames": frames, "quantiles": quantiles})
            found.append((name + kind, float(np.abs(ours - raw).max() / np.abs(raw).max())))
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
