import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

_DIMENSIONS = 64
"""Of the random projection in which the coreset is chosen (Roth et al. 2022, §3.2)."""


def greedy_coreset(features: Tensor, members: int, seed: int) -> NDArray[np.int64]:
    """Choose features so that no other is far from all of them: each time the farthest (k-center greedy).

    Args:
        features: N×C.
        members: to choose, at most N.
        seed: of the first, and of the projection.

    Returns:
        The indices of the chosen.
    """
    random = torch.Generator().manual_seed(seed)
    if features.shape[1] > _DIMENSIONS:
        directions = torch.randn(features.shape[1], _DIMENSIONS, generator=random) / _DIMENSIONS**0.5
        features = features @ directions
    lengths = features.square().sum(1)
    chosen = np.empty(members, dtype=np.int64)
    chosen[0] = int(torch.randint(len(features), (1,), generator=random))
    nearest = torch.full((len(features),), torch.inf)
    for index in tqdm(range(1, members), desc="choosing the coreset", unit="patch"):
        last = features[chosen[index - 1]]
        nearest = torch.minimum(nearest, torch.addmv(lengths + last.square().sum(), features, last, alpha=-2))
        chosen[index] = int(nearest.argmax())
    return chosen
