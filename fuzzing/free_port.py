"""A port for a daemon that a test or a fuzzing target is about to start."""

import random
import socket
from contextlib import suppress
from pathlib import Path


def free_port(host: str = "127.0.0.1") -> int:
    """Find a port that is free, and that the system gives to no connection before it is bound."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(10_000, first_given)
        with socket.socket(family) as probe, suppress(OSError):
            probe.bind((host, port))
            return port
