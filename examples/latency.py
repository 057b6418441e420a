"""Measure how long verdicts take: python latency.py tcp://127.0.0.1:5560 line3 200."""

import sys
from itertools import islice
from statistics import quantiles

from verdicts import subscribe

address, line, wanted = sys.argv[1:4]
times = [
    v.latency_ms for v in islice(subscribe(address, line=line, decisions={"pass", "reject"}), int(wanted))
]
for name in ("wait", "infer", "total"):
    cuts = quantiles((t for latency in times if (t := getattr(latency, name)) is not None), n=100)
    print(f"{name:<6} {cuts[49]:8.2f} ms median {cuts[98]:8.2f} ms p99")
