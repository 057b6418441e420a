"""Opens a backbone, by a file or by a name."""

from collections.abc import Sequence
from pathlib import Path

from models.backbones.backbone import Backbone

TORCHVISION = "torchvision:"


def open_backbone(source: str, layers: Sequence[str] | None, threads: int) -> Backbone:
    """Open a backbone.

    Args:
        source: an ONNX file, or "torchvision:" and the name of one of its classifiers.
        layers: to join, by their names in it; when None those that its kind suggests.
        threads: to compute with.

    Raises:
        InputError: see ``OnnxBackbone`` and ``TorchvisionBackbone``.
    """
    if source.startswith(TORCHVISION):
        from models.backbones.torchvision_model import TorchvisionBackbone

        return TorchvisionBackbone(source.removeprefix(TORCHVISION), layers)
    from models.backbones.onnx_file import OnnxBackbone

    return OnnxBackbone(Path(source), layers, threads)
