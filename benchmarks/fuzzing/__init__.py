"""What `benchmarks/fuzz.py` runs: one module per target, and the process that feeds it."""
