"""What `python -m fuzzing` runs: one module per target, and the process that feeds it."""
