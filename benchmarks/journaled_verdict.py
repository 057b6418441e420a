"""What a verdict's way from its decision through the journal to the wire costs in processor time.

    python benchmarks/journaled_verdict.py --batch 1 4

The machine's other work changes how many verdicts share a transaction in ``throughput.py``, and so what each
costs. Here it is told, and nothing else runs: no camera, no lane, no subscriber.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from daemon.delivery.journaled_publisher import JournaledPublisher
from daemon.delivery.publisher import Publisher
from daemon.host.access import Access
from daemon.host.turns import Turns, run
from daemon.journal.journal import Journal
from daemon.journal.writer import JournalWriter
from verdicts import Verdict
from verdicts.verdict import Latency, Peak

A_VERDICT = Verdict(
    line="line3",
    camera="top",
    frame=1,
    part=None,
    boot="aa",
    seq=1,
    decision="pass",
    reason=None,
    score=0.25,
    threshold=0.5,
    peak=Peak(12, 34),
    captured_at="2026-11-30T00:00:00.000000Z",
    latency_ms=Latency(wait=1.0, infer=1.0, total=2.0),
    model="s",
    archive=None,
)
WARM_UP = 200


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="verdicts of a transaction")
    parser.add_argument("--transactions", type=int, default=3000, help="(default: %(default)s)")
    options = parser.parse_args()
    for batch in options.batch:
        with tempfile.TemporaryDirectory() as folder:
            took_us = run(lambda turns: cost_us(turns, Path(folder), batch, options.transactions))  # noqa: B023
        print(f"{batch} verdicts in a transaction: {took_us:.1f} us of processor time for each transaction")


async def cost_us(turns: Turns, folder: Path, batch: int, transactions: int) -> float:
    """Give the processor time of a transaction, each in a turn of the event loop of its own."""
    wire = Publisher(f"ipc://{folder}/publish", Access())
    journal = JournalWriter(
        Journal(folder / "journal", line="line3", keep_days=30, max_mb=1000), turns.between
    )
    publisher = JournaledPublisher(wire, journal, None, on_journal_error="fault")
    began_s = 0.0
    for number in range(WARM_UP + transactions):
        if number == WARM_UP:
            began_s = time.process_time()
        seqs = range(number * batch + 1, (number + 1) * batch + 1)
        verdicts = [replace(A_VERDICT, seq=seq, frame=seq) for seq in seqs]
        turns.at_end(lambda verdicts=verdicts: publisher.send(verdicts))  # type: ignore[misc]
        while publisher.decisions["pass"] < seqs[-1]:
            await asyncio.sleep(0)
    took_s = time.process_time() - began_s
    publisher.close()
    journal.close()
    wire.close()
    return took_s / transactions * 1e6


if __name__ == "__main__":
    main()
    os._exit(0)
