"""Computes features with a trunk, on the CPU."""

import numpy as np
import openvino
from numpy.typing import NDArray
from torch import Tensor

from engine_runtime.open import one_line
from foundation.errors import InputError
from models.backbones.trunk import Trunk


class Features:
    """A trunk, ready to compute; its features are those that an engine of the exported model computes.

    Args:
        trunk: of joined features.
        threads: to compute with.

    Raises:
        InputError: OpenVINO does not take it.
    """

    def __init__(self, trunk: Trunk, threads: int) -> None:
        self.trunk = trunk
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(
                core.read_model(trunk.model().SerializeToString()), "CPU", settings
            )
        except RuntimeError as error:
            raise InputError(
                f"--backbone {trunk.name}: OpenVINO does not take it: {one_line(error)}"
            ) from error

    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Give the joined features.

        Args:
            images: N×3×H×W uint8, RGB.

        Returns:
            N×C×h×w.

        Raises:
            InputError: one is NaN or infinite.
        """
        found: NDArray[np.float32] = self._compiled(images.flip(1).float().contiguous().numpy())[0].copy()
        if not np.isfinite(found).all():
            raise InputError(
                f"--backbone {self.trunk.name}: its features are NaN or infinite; expected a trained network"
            )
        return found
