from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine_runtime.engine import uncalibrated
from models.backbones.trunk import Trunk
from models.efficientad.backbone_teacher import BackboneTeacher
from models.efficientad.networks import (
    STRIDE,
    TEACHER_CHANNELS,
    FeatureMap,
    ModelSize,
    autoencoder,
    map_size,
    normalised,
    pdn,
    strided_pdn,
)
from models.efficientad.picture import Picture
from models.efficientad.positions import OF_BACKBONE, OF_PDN, Density, UsualMap, pooled
from pictures.frames import Size
from pictures.heatmap import MapGeometry

LOCAL, GLOBAL, DENSITY, WHOLE = "local", "global", "density", "whole"


class Judgement(NamedTuple):
    """The outputs of contract 1, float32."""

    score: Tensor
    anomaly_map: Tensor
    maps: tuple[Tensor, ...]
    """Before normalisation, in the order of ``EfficientAd.map_names``."""


class EfficientAd(nn.Module):
    """Teacher, student and autoencoder, and the arithmetic from frames to scores (paper §4.1 to §4.4).

    Args:
        size: of the model.
        image_size: height and width of the frames it takes.
        with_autoencoder: without it, the student has only the half that imitates the teacher, and there is no
            global map.
        position_aware: local and global map are z-scores of what good images show at each position.
        with_density: there is a map of the density of the teacher's features.
        with_whole: there is a map of how unlike the good ones the picture is as a whole.
        trunk: of a backbone whose joined features are the teacher's; a PDN when None.
    """

    autoencoder: nn.Sequential | None
    usual_local: UsualMap | None
    usual_global: UsualMap | None
    density: Density | None
    picture: Picture | None

    teacher_mean: Tensor
    teacher_std: Tensor
    quantiles: Tensor
    weights: Tensor
    """Of the maps in the score, K; they are in ``quantiles`` already."""

    def __init__(
        self,
        size: ModelSize,
        image_size: Size,
        with_autoencoder: bool = True,
        *,
        position_aware: bool = True,
        with_density: bool = True,
        with_whole: bool = True,
        trunk: Trunk | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.image_size = image_size
        self.trunk = trunk
        self.detail = OF_PDN if trunk is None else OF_BACKBONE
        halves = 2 if with_autoencoder else 1
        if trunk is None:
            self.channels, self.cells = TEACHER_CHANNELS[size], map_size(image_size)
            self.teacher: nn.Module = pdn(size, self.channels).requires_grad_(False)
            self.student = pdn(size, halves * self.channels)
            like = None
        else:
            self.channels, self.cells = trunk.channels, trunk.grid
            self.teacher = BackboneTeacher(trunk)
            self.student = strided_pdn(size, halves * self.channels)
            like = FeatureMap(self.channels, self.cells)
        self.autoencoder = autoencoder(size, image_size, like=like) if with_autoencoder else None
        self.usual_local = UsualMap(self.cells) if position_aware else None
        self.usual_global = UsualMap(self.cells) if position_aware and with_autoencoder else None
        fine = 0 if trunk is None else trunk.fine
        self.density = Density(self.channels, self.cells, self.detail, fine) if with_density else None
        self.picture = Picture(self.channels, self.detail.focus) if with_whole else None
        self.register_buffer("teacher_mean", torch.zeros(self.channels))
        self.register_buffer("teacher_std", torch.ones(self.channels))
        self.register_buffer("quantiles", torch.from_numpy(uncalibrated(self.map_names)))
        self.register_buffer("weights", torch.ones(len(self.map_names)))

    @property
    def map_names(self) -> tuple[str, ...]:
        """Name the maps, in the order of the quantiles' rows."""
        parts = {GLOBAL: self.autoencoder, DENSITY: self.density, WHOLE: self.picture}
        return (LOCAL, *(name for name, part in parts.items() if part is not None))

    @property
    def geometry(self) -> MapGeometry:
        """Say where a cell of the maps lies in the frame."""
        if self.trunk is None:
            return MapGeometry(self.image_size, self.cells, (STRIDE, STRIDE))
        return MapGeometry.of(self.image_size, self.cells, {})

    def targets(self, images: Tensor) -> Tensor:
        """Give the teacher's features with mean 0 and variance 1 over the training set, per channel.

        Args:
            images: N×3×H×W float32 after ``normalised``.

        Returns:
            N×C×h×w float32.
        """
        features: Tensor = self.teacher(images)
        return (features - self.teacher_mean[:, None, None]) / self.teacher_std[:, None, None]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Give the maps, N×h×w each, in the order of ``map_names``.

        Args:
            images: N×3×H×W float32 after ``normalised``.
        """
        targets = self.targets(images)
        maps = list(self.differences(images, targets))
        shape, features = maps[0], pooled(targets, self.detail)
        for place, usual in enumerate((self.usual_local, self.usual_global)):
            if usual is not None:
                maps[place] = usual(maps[place])
        if self.density is not None:
            shape = self.density(features)
            maps.append(shape)
        if self.picture is not None:
            maps.append(self.picture(features, shape))
        return tuple(maps)

    def differences(self, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Give the mean squared differences from the teacher and, if there is one, the autoencoder.

        Args:
            images: see ``maps``.
            targets: the teacher's features of them, see ``targets``.

        Returns:
            One or two maps, N×h×w float32 each.
        """
        student = self.student(images)
        local = (targets - student[:, : self.channels]).square().mean(1)
        if self.autoencoder is None:
            return (local,)
        return local, (self.autoencoder(images) - student[:, self.channels :]).square().mean(1)

    def forward(self, frames: Tensor, quantiles: Tensor) -> Judgement:
        """Judge frames as the exported graph does.

        Args:
            frames: N×H×W×3 uint8, BGR.
            quantiles: K×2 float32, a row for each map, columns q_a and q_b.
        """
        maps = self.maps(normalised(frames.permute(0, 3, 1, 2).flip(1)))
        anomaly = combined(maps, quantiles)
        return Judgement(anomaly.amax((1, 2)), anomaly, maps)


def combined(maps: Sequence[Tensor], quantiles: Tensor) -> Tensor:
    """Give the mean of K maps, N×h×w each, that map q_a to 0 and q_b to 0.1 (paper §4.4)."""
    q_a, q_b = quantiles[:, 0, None, None], quantiles[:, 1, None, None]
    scaled: Tensor = 0.1 * (torch.stack(tuple(maps), dim=1) - q_a) / (q_b - q_a)
    return scaled.mean(1)
