from foundation.errors import WorkFailed


class TrainingFailed(WorkFailed):
    """Training cannot go on. ``str(error)`` is one line that says why and which state of it is kept."""
