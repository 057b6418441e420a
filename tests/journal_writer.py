"""Writes a journal in a process of its own, to be killed or to run into limits.

Prints a line after each ``write`` that returned (``written SEQ ENTRIES HEAD``) or failed (``failed WHY``).
"""

import itertools
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

from line_process import a_verdict

from daemon.journal.journal import Journal, JournalFailed
from verdicts import encode


def main(file: str, boot: str, batch: int, most_bytes: int, max_mb: float) -> None:
    if most_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    journal = Journal(Path(file), line="line3", keep_days=30, max_mb=max_mb)
    print("open", flush=True)
    verdict = a_verdict(1, boot)
    for seq in itertools.count(1, batch):
        verdicts = [replace(verdict, seq=number, frame=number) for number in range(seq, seq + batch)]
        try:
            journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
        except JournalFailed as error:
            print(f"failed {error}", flush=True)
            break
        print(f"written {seq + batch - 1} {journal.entries} {journal.head}", flush=True)
    sys.stdin.readline()
    journal.close()


if __name__ == "__main__":
    file, boot, batch, most_bytes, max_mb = sys.argv[1:]
    main(file, boot, int(batch), int(most_bytes), float(max_mb))
