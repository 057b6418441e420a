"""Where scripts of installations before this version look for the commands of this package."""

from foundation.start import efficientad, evaluate_model, train_model

__all__ = ["efficientad", "evaluate_model", "train_model"]
