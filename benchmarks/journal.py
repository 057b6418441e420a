"""What it costs to journal verdicts: processor time, latency of a transaction, size of file and log.

    python benchmarks/journal.py

For each batch size, verdicts are written at a fixed rate, as the daemon does once per turn of its loop.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from daemon.journal.database import wal_of
from daemon.journal.journal import Journal
from verdicts import Latency, Peak, Verdict, encode


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000, help="per batch size (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=5000, help="verdicts per second (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="verdicts per transaction")
    parser.add_argument("--max-mb", type=float, default=100, help="of the journal (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="on which disk (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options = parser.parse_args()
    results = []
    for batch in options.batches:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            file = Path(folder, "line3.journal")
            results.append(journaled(file, options.rows, batch, options.rate, options.max_mb))
            print(json.dumps(results[-1]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def journaled(file: Path, rows: int, batch: int, rate: float, max_mb: float) -> dict[str, float]:
    """Write so many verdicts; times are in microseconds of the thread that writes."""
    verdict = Verdict(
        line="line3",
        camera="top",
        frame=1,
        part="flange-2024",
        boot="ab12cd34ef567890",
        seq=1,
        decision="pass",
        reason=None,
        score=0.123456789,
        threshold=0.25,
        peak=Peak(123, 456),
        captured_at="2026-01-31T12:00:00.123456Z",
        latency_ms=Latency(1.234, 20.123, 21.567),
        model="flange-s",
        archive=None,
    )
    _, payload = encode(verdict)
    journal = Journal(file, line="line3", keep_days=30, max_mb=max_mb)
    took_us: list[float] = []
    busy_s = 0.0
    largest_log = 0
    started = time.perf_counter()
    for first in tqdm(range(1, rows + 1, batch), desc=f"batches of {batch}", unit="batch", disable=None):
        made = [(replace(verdict, seq=n, frame=n), payload) for n in range(first, first + batch)]
        before, before_cpu = time.perf_counter(), time.thread_time()
        journal.write(made)
        took_us.append((time.perf_counter() - before) * 1e6)
        busy_s += time.thread_time() - before_cpu
        if len(took_us) % 50 == 0:
            largest_log = max(largest_log, wal_of(file).stat().st_size)
        time.sleep(max(0.0, started + first / rate - time.perf_counter()))
    seconds = time.perf_counter() - started
    written = len(took_us) * batch
    size = file.stat().st_size
    journal.close()
    took_us.sort()
    return {
        "batch": batch,
        "verdicts_per_s": round(written / seconds),
        "cpu_us_per_verdict": round(busy_s / written * 1e6, 1),
        "cpu_us_per_transaction": round(busy_s / len(took_us) * 1e6, 1),
        "share_of_a_core": round(busy_s / seconds, 3),
        **{f"p{share}_us": round(took_us[int(len(took_us) * share / 100)]) for share in (50, 99, 99.9)},
        "max_us": round(took_us[-1]),
        "file_mb": round(size / 1e6, 1),
        "largest_log_mb": round(largest_log / 1e6, 1),
    }


if __name__ == "__main__":
    main()
