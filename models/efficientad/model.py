from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine_runtime.engine import uncalibrated
from models.efficientad.networks import TEACHER_CHANNELS, ModelSize, autoencoder, normalised, pdn
from pictures.frames import Size


class Judgement(NamedTuple):
    """The outputs of contract 1, float32."""

    score: Tensor
    anomaly_map: Tensor
    local_map: Tensor
    global_map: Tensor


class EfficientAd(nn.Module):
    """Teacher, student and autoencoder, and the arithmetic from frames to scores (paper §4.1 to §4.4).

    Args:
        size: of the model.
        image_size: height and width of the frames it takes.
        with_autoencoder: without it, the student has only the half that imitates the teacher, and the global
            map is the local one: their mean, the anomaly map, is then the student–teacher map alone.
    """

    autoencoder: nn.Sequential | None

    teacher_mean: Tensor
    teacher_std: Tensor
    quantiles: Tensor

    def __init__(self, size: ModelSize, image_size: Size, with_autoencoder: bool = True) -> None:
        super().__init__()
        self.size = size
        self.image_size = image_size
        self.channels = TEACHER_CHANNELS[size]
        self.teacher = pdn(size, self.channels).requires_grad_(False)
        self.student = pdn(size, (2 if with_autoencoder else 1) * self.channels)
        self.autoencoder = autoencoder(size, image_size) if with_autoencoder else None
        self.register_buffer("teacher_mean", torch.zeros(self.channels))
        self.register_buffer("teacher_std", torch.ones(self.channels))
        self.register_buffer("quantiles", torch.from_numpy(uncalibrated(("local", "global"))))

    def targets(self, images: Tensor) -> Tensor:
        """Give the teacher's features with mean 0 and variance 1 over the training set, per channel."""
        features: Tensor = self.teacher(images)
        return (features - self.teacher_mean[:, None, None]) / self.teacher_std[:, None, None]

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give the local (student–teacher) and the global (student–autoencoder) map, N×h×w each.

        Args:
            images: N×3×H×W float32 after ``normalised``.
        """
        student = self.student(images)
        local = (self.targets(images) - student[:, : self.channels]).square().mean(1)
        if self.autoencoder is None:
            return local, local
        large = (self.autoencoder(images) - student[:, self.channels :]).square().mean(1)
        return local, large

    def forward(self, frames: Tensor, quantiles: Tensor) -> Judgement:
        """Judge frames as the exported graph does.

        Args:
            frames: N×H×W×3 uint8, BGR.
            quantiles: 2×2 float32, rows local and global, columns q_a and q_b.
        """
        local, large = self.maps(normalised(frames.permute(0, 3, 1, 2).flip(1)))
        q_a, q_b = quantiles[:, 0, None, None], quantiles[:, 1, None, None]
        anomaly = (0.1 * (torch.stack([local, large], dim=1) - q_a) / (q_b - q_a)).mean(1)
        return Judgement(anomaly.amax((1, 2)), anomaly, local, large)
