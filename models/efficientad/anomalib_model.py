"""EfficientAD as anomalib has it: our networks, its padding, and what it makes of the maps."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine_runtime.engine import uncalibrated
from foundation.files import write_whole
from models.efficientad.export import Graph, add_networks
from models.efficientad.networks import TEACHER_CHANNELS, AsInAnomalib, ModelSize, autoencoder, pdn
from models.method import as_text
from pictures.frames import Size
from pictures.heatmap import MAP_STRIDE
from pictures.map_quantiles import MAP_NORMALISATION

MAPS = ("local", "global")


class AnomalibModel(nn.Module):
    """Teacher, student and autoencoder with anomalib's weights.

    Args:
        size: of the model.
        image_size: height and width of the frames it takes.
        anomalib: what it does otherwise than ours.
    """

    teacher_mean: Tensor
    teacher_std: Tensor
    quantiles: Tensor

    def __init__(self, size: ModelSize, image_size: Size, anomalib: AsInAnomalib) -> None:
        super().__init__()
        self.size, self.image_size, self.anomalib = size, image_size, anomalib
        channels = TEACHER_CHANNELS[size]
        self.teacher = pdn(size, channels, anomalib.padding)
        self.student = pdn(size, 2 * channels, anomalib.padding)
        self.autoencoder = autoencoder(size, image_size, anomalib)
        self.register_buffer("teacher_mean", torch.zeros(channels))
        self.register_buffer("teacher_std", torch.ones(channels))
        self.register_buffer("quantiles", torch.from_numpy(uncalibrated(MAPS)))

    def networks(self) -> dict[str, nn.Sequential]:
        """Give the three networks by their names."""
        return {"teacher": self.teacher, "student": self.student, "autoencoder": self.autoencoder}

    def export(self, path: Path, digest: str) -> None:
        """Write the model as a graph of contract 1.

        Args:
            path: file to write.
            digest: SHA-256 of the checkpoint.

        Raises:
            InputError: the folder of ``path`` cannot be written.
        """
        graph = _Graph()
        outputs = add_networks(graph, self.networks(), self.state_dict())
        halves = graph.halves(outputs["student"], len(self.teacher_mean))
        pairs = [(outputs["teacher"], halves[0], "local"), (outputs["autoencoder"], halves[1], "global")]
        planes = [
            graph.enlarged(graph.mean_square(*pair), self.anomalib.border, self.image_size) for pair in pairs
        ]
        graph.combine(dict(zip(MAPS, planes, strict=True)))
        proto = graph.model("efficientad", self.image_size, self.image_size, MAPS, self._metadata(digest))
        write_whole(path, proto.SerializeToString())

    def _metadata(self, digest: str) -> dict[str, str]:
        return {
            "image_size": f"{self.image_size.height}x{self.image_size.width}",
            "channel_order": "BGR",
            MAP_STRIDE: "1",  # its maps are enlarged to the image
            "model_size": self.size,
            "training_quantiles": as_text(self.quantiles.numpy()),
            MAP_NORMALISATION: "quantile",
            "imported_from": "anomalib",
            "checkpoint_digest": digest,
            "tool_version": version("inspectd"),
        }


class _Graph(Graph):
    def halves(self, student: str, channels: int) -> tuple[str, str]:
        """Split the student's channels into those for the teacher and those for the autoencoder."""
        names = ("student_local", "student_global")
        for place, name in enumerate(names):
            bounds = (place * channels, (place + 1) * channels, 1)
            start, end, axis = (
                self.weight(f"{name}_{kind}", np.array([bound], dtype=np.int64))
                for kind, bound in zip(("start", "end", "axis"), bounds, strict=True)
            )
            self.node("Slice", [student, start, end, axis], name)
        return names

    def enlarged(self, plane: str, border: int, size: Size) -> str:
        """Surround an N×1×h×w map with zeros and enlarge it: N×1×H×W."""
        if border:
            pads = self.weight(f"{plane}_border", np.array([0, 0, border, border] * 2, dtype=np.int64))
            plane = self.node("Pad", [plane, pads], f"{plane}_padded")
        sides = self.weight(f"{plane}_sides", np.array([1, *size], dtype=np.int64))
        sizes = self.node("Concat", ["batch", sides], f"{plane}_size", axis=0)
        half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", [plane, "", "", sizes], f"{plane}_enlarged", **half)
