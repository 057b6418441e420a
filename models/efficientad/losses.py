import math

from torch import Tensor

P_HARD = 0.999
"""Share of the student–teacher differences that the hard feature loss leaves out (paper §4.2)."""


def hard_feature_loss(teacher: Tensor, student: Tensor, p_hard: float = P_HARD) -> Tensor:
    """Average the squared differences at or above their ``p_hard`` quantile (paper §4.2).

    Args:
        teacher: N×C×h×w, normalised.
        student: N×C×h×w.
        p_hard: from 0, which averages all of them, to less than 1.
    """
    differences = (teacher - student).square().flatten()
    if p_hard == 0:
        return differences.mean()
    # The quantile lies between two sorted values; partial sorting gives what lies above it for less.
    kept = differences.numel() - math.ceil(p_hard * (differences.numel() - 1))
    return differences.topk(kept, sorted=False).values.mean()


def squared_error(target: Tensor, prediction: Tensor) -> Tensor:
    """Average all squared differences: the autoencoder's and the student–autoencoder loss (paper §4.3).

    Args:
        target: N×C×h×w float32.
        prediction: of the same shape.
    """
    return (target - prediction).square().mean()


def pretraining_penalty(student: Tensor) -> Tensor:
    """Punish what the student says of an image that is not of the product (paper §4.2).

    Args:
        student: N×C×h×w, the half of the student's output that imitates the teacher.
    """
    return student.square().mean()
