"""Opens a backbone, by a file or by a name."""

from collections.abc import Sequence
from pathlib import Path

from models.backbones import efficientnet_lite
from models.backbones.backbone import Backbone
from models.backbones.trunk import Trunk
from pictures.frames import Size

TORCHVISION = "torchvision:"


def open_backbone(source: str, layers: Sequence[str] | None, threads: int) -> Backbone:
    """Open a backbone.

    Args:
        source: an ONNX file, one of ``efficientnet_lite.NAMES``, or "torchvision:" and the name of one of its
            classifiers.
        layers: to join, by their names in it; when None those that its kind suggests.
        threads: to compute with.

    Raises:
        InputError: see ``efficientnet_lite``, ``OnnxBackbone`` and ``TorchvisionBackbone``.
    """
    if source in efficientnet_lite.NAMES:
        from models.backbones.lite_backbone import LiteBackbone

        return LiteBackbone(source, layers, threads)
    if source.startswith(TORCHVISION):
        from models.backbones.torchvision_model import TorchvisionBackbone

        return TorchvisionBackbone(source.removeprefix(TORCHVISION), layers)
    from models.backbones.onnx_file import OnnxBackbone

    return OnnxBackbone(Path(source), layers, threads)


def open_trunk(source: str, size: Size, layers: Sequence[str] | None) -> Trunk:
    """Open the first layers of a backbone as a graph that an exported model can hold.

    Args:
        source: an ONNX file, one of ``efficientnet_lite.NAMES``, or "torchvision:" and a name.
        size: of the images.
        layers: to join, by their names in it; when None those that its kind suggests.

    Raises:
        InputError: see ``efficientnet_lite``, ``onnx_trunk`` and ``torchvision_trunk``.
    """
    if source in efficientnet_lite.NAMES:
        return efficientnet_lite.efficientnet_lite(source, size, efficientnet_lite.stages(source, layers))
    if source.startswith(TORCHVISION):
        from models.backbones.torchvision_model import torchvision_trunk

        return torchvision_trunk(source.removeprefix(TORCHVISION), size, layers)
    from models.backbones.onnx_file import onnx_trunk

    return onnx_trunk(Path(source), size, layers)
