"""The peer, anomalib, in an environment of its own and in child processes."""
