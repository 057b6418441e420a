"""The machine goes down: what its disk has not taken is gone, of journal, positions, counters and archive.

The disk is an ext4 file system of its own that is shut down without flushing anything, as losing power does
(``EXT4_IOC_SHUTDOWN``); mounting it again replays ext4's own journal. The next start of the daemon finds
another start of the machine in its ``/proc``.

What such a file system never does is tried on disks that are made out of a recording (``cut_disks.py``).
"""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from line_rig import part_image
from patience import PATIENCE_S

from daemon.config import load_config
from daemon.control.positions import Positions
from daemon.journal import power_cut
from daemon.journal.audit import audit
from daemon.journal.chain import POWER_CUT
from daemon.journal.journal import Journal
from daemon.journal.reader import JournalReader
from daemon.journal.writer import JournalWriter
from daemon.judging.product import Product
from daemon.load import load_products
from daemon.recovery import unfinished_verdicts
from faults.cut_disks import CutDisk, Recording
from faults.preload import built
from faults.trial import BELT, Trial, health
from verdicts import LineSilent, Lost, Verdict, acknowledged, encode
from verdicts.verdict import decode_verdict

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_WITHOUT_FLUSH = struct.pack("I", 2)


class Disk:
    """A mounted disk whose power can be cut."""

    def __init__(self, folder: Path, mb: int = 64) -> None:
        self.image, self.folder = folder / "disk.img", folder / "disk"
        self.folder.mkdir()
        self.image.write_bytes(b"")
        os.truncate(self.image, mb << 20)
        self._run("mkfs.ext4", "-q", self.image)
        self.mount()

    def mount(self) -> None:
        self._run("mount", "-o", "loop", self.image, self.folder)

    def cut(self) -> None:
        """Lose what was not synced; every access fails from now on."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_FLUSH)
        except OSError as error:
            pytest.skip(f"a disk's power cannot be cut here: {error}")
        finally:
            os.close(descriptor)

    def come_up_again(self) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while subprocess.run(["umount", self.folder], capture_output=True, check=False).returncode:
            assert time.monotonic() < give_up_s, "somebody still uses the disk"
            time.sleep(0.05)
        self.mount()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], capture_output=True, check=False)

    @staticmethod
    def _run(*command: str | Path) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"wants {command[0]}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.getuid() != 0:
        pytest.skip("mounting a disk needs root")
    disk = Disk(tmp_path)
    yield disk
    disk.close()


class Gate(threading.Thread):
    """A gate that acknowledges, and keeps what it was given."""

    def __init__(self, control: str) -> None:
        super().__init__(daemon=True)
        self.given: list[tuple[Verdict, bool]] = []
        self.lost: list[Lost] = []
        self._control = control
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        with acknowledged(
            self._control, line="line3", name="gate", silence_s=1, on_lost=self.lost.append
        ) as verdicts:
            while not self._ending.is_set():
                with contextlib.suppress(LineSilent):
                    verdict = next(verdicts)
                    self.given.append((verdict, verdicts.repeated))

    def end(self) -> None:
        self._ending.set()
        self.join(PATIENCE_S)


def journaled(journal: Path) -> list[Verdict]:
    with JournalReader(journal) as reader:
        return [decode_verdict(payload) for _, payload in reader.after(0, 10_000_000)]


@pytest.mark.parametrize(
    "durable",
    [
        pytest.param(False, marks=pytest.mark.faults("Journal", "power cut, started again")),
        pytest.param(True, marks=pytest.mark.faults("Journal", "power cut, `durable: true`, started again")),
    ],
)
def test_power_cut(trial: Trial, disk: Disk, durable: bool) -> None:
    machine = trial.folder / "boot_id"
    machine.write_text(f"{uuid.uuid4()}\n")
    trial.machine = machine
    trial.start(
        {"top": BELT | {"fps": 200}},
        journal={"file": str(disk.folder / "line3.journal"), "durable": durable},
        archive={"folder": str(disk.folder / "rejects")},
        required_subscribers=["gate"],
    )
    boot = trial.verdicts[0].boot
    gate = Gate(trial.content["control"])
    trial.wait_for(health("running", lambda h: h.subscribers["gate"].present))
    seen = len(trial.verdicts)
    trial.wait_until(lambda: len(trial.verdicts) > seen + 700)
    trial.inject()
    trial.send(signal.SIGSTOP)  # nobody sees the disk fail: with the power, the daemon is gone
    disk.cut()
    trial.killed()
    gate.end()
    disk.come_up_again()
    machine.write_text(f"{uuid.uuid4()}\n")
    kept = journaled(trial.journal)
    before = {(verdict.boot, verdict.seq): verdict for verdict in trial.verdicts}

    trial.launch()
    another = Gate(trial.content["control"])
    trial.detected(health("another boot", lambda h: h.boot != boot))
    trial.recovered()
    trial.wait_until(lambda: any(verdict.boot != boot for verdict, _ in another.given))
    trial.wait_until(lambda: len(another.given) > 100)

    written = journaled(trial.journal)
    assert written[: len(kept)] == kept, "what the disk had taken is gone"
    with JournalReader(trial.journal) as reader:
        marks = [row for row in reader.rows(0, 10_000_000) if row.kind == POWER_CUT]
        cut = reader.last_event(POWER_CUT)
    assert len(marks) == 1 and cut is not None and cut["boot"] == boot
    assert cut["last"] == max(verdict.seq for verdict in kept if verdict.boot == boot)
    # What the gate or anybody else saw is in the journal as it was, or lies behind the mark.
    known = {(verdict.boot, verdict.seq): verdict for verdict in written}
    heard = before | {(verdict.boot, verdict.seq): verdict for verdict, _ in gate.given}
    unmarked = [key for key, verdict in heard.items() if known.get(key) != verdict and key[1] <= cut["last"]]
    assert not unmarked
    lost = [key for key in heard if key not in known]
    if durable:
        assert not lost
    # No number that may have been published was given to another verdict.
    after = [verdict for verdict in trial.verdicts if (verdict.boot, verdict.seq) not in before]
    assert len({(verdict.boot, verdict.seq) for verdict in trial.verdicts}) == len(trial.verdicts)
    assert all(verdict.reason == "shutdown" for verdict in after if verdict.boot == boot)
    # The gate goes on where both know where it was: what it had is marked, the rest is new.
    had = {(verdict.boot, verdict.seq) for verdict, _ in gate.given}
    again = [verdict for verdict, repeated in another.given if (verdict.boot, verdict.seq) in had]
    assert all(repeated for verdict, repeated in another.given if (verdict.boot, verdict.seq) in had)
    assert len(again) < 500, "it was told all of the journal again"
    new = [verdict for verdict, _ in another.given]
    missed = [
        (verdict.boot, verdict.seq)
        for verdict in written
        if (verdict.boot, verdict.seq) not in had
        and verdict.seq > min(v.seq for v, _ in gate.given)
        and verdict.boot == boot
        and verdict not in new
    ]
    assert not missed
    another.end()
    trial.finish(faults=set(), possible={("top", "shutdown")}, lost_in_power_cut=(boot, cut["last"]))


PAGES = "pages torn and in any order"
CUTS = 100
SEED = 20261130


class Recorded(NamedTuple):
    """What a line did until it was killed, and what came of it."""

    folder: Path
    """With the journal, what lies beside it, and the archive."""
    changes: Path
    journal: dict[tuple[str, int], Verdict]
    heard_s: dict[tuple[str, int], float]
    pictures: dict[str, bytes]


def recorded(trial: Trial, *, durable: bool) -> Recorded:
    """Have a line judge parts for a gate, and kill it."""
    folder, changes = trial.folder / "disk", trial.folder / "changes"
    folder.mkdir()
    preload = {
        "LD_PRELOAD": built("recording_disk.c", trial.folder),
        "RECORDED_FOLDER": str(folder),
        "RECORDING": str(changes),
    }
    for index in range(20):
        part_image(trial.folder / f"parts/{index:02}.png", bright=index == 7)
    trial.start(
        {"top": {"source": "parts", "loop": True, "fps": 200, "waiting": 1000}},
        journal={"file": str(folder / "line3.journal"), "durable": durable, "max_mb": 1},
        archive={"folder": str(folder / "rejects")},
        required_subscribers=["gate"],
        environment=preload,
    )
    gate = Gate(trial.content["control"])
    trial.wait_for(health("running", lambda h: h.subscribers["gate"].present))
    seen = len(trial.verdicts)
    trial.wait_until(lambda: len(trial.verdicts) > seen + 600)
    trial.inject()
    trial.killed()
    gate.end()
    return Recorded(
        folder,
        changes,
        {(verdict.boot, verdict.seq): verdict for verdict in journaled(trial.journal)},
        {(m.boot, m.seq): at_s for at_s, m in trial.messages if isinstance(m, Verdict)},
        {path.name: path.read_bytes() for path in (folder / "rejects").iterdir()},
    )


def check_disk(line: Recorded, cut: CutDisk, laid: Path, product: Product, *, durable: bool) -> list[str]:
    """Start on a disk, and see that nothing on it is torn; give what was there to be tried."""
    cut.lay(laid, line.folder)
    there = [what for what in ("subscribers", "captured") if list(laid.glob(f"line3.journal*{what}"))]
    kept = started_again(laid / "line3.journal", product, durable=durable)
    assert kept.items() <= line.journal.items()
    last = max((seq for _, seq in kept), default=0)
    assert last == len(kept), "the journal lacks more than its end"
    lost = [key for key, at_s in line.heard_s.items() if at_s < cut.cut_s and key not in kept]
    assert not (durable and lost), f"was published and is lost: {lost[:5]}"
    pictures = list(laid.glob("rejects/[!.]*"))
    for picture in pictures:
        assert picture.read_bytes() == line.pictures[picture.name], f"{picture.name} is torn"
    shutil.rmtree(laid)
    return there + ["pictures"] * bool(pictures) + ["verdicts"] * bool(kept) + ["lost"] * bool(lost)


def started_again(journal: Path, product: Product, *, durable: bool) -> dict[tuple[str, int], Verdict]:
    """Do what a start does with what the disk has; give the verdicts that were in the journal."""
    opened = Journal(journal, line="line3", keep_days=90, max_mb=1, durable=durable)
    with (
        contextlib.closing(JournalWriter(opened, at_once)) as writer,
        JournalReader(journal) as reader,
    ):
        kept = [decode_verdict(payload) for _, payload in reader.after(0, 10_000_000)]
        cut_off = power_cut.note_power_cut(writer, reader)
        closed = list(unfinished_verdicts(reader, journal, "line3", product, cut_off=cut_off))
        opened.write([(verdict, encode(verdict)[1]) for verdict in closed])
        positions = Positions(journal.with_name(f"{journal.name}-subscribers"))
        for name in positions.names():
            positions.agrees(name, reader.hash_of)
    result = audit(journal)
    assert result.intact, result.broken
    return {(verdict.boot, verdict.seq): verdict for verdict in kept}


def _half_written(folder: Path) -> Iterator[Path]:
    return (folder / "rejects").glob(".*.*.*")


def at_once(work: Callable[[], object], told: Callable[[], object]) -> None:
    work()
    told()


@pytest.mark.parametrize(
    "durable",
    [
        pytest.param(False, marks=pytest.mark.faults("Journal", f"power cut, {PAGES}, started again")),
        pytest.param(
            True, marks=pytest.mark.faults("Journal", f"power cut, {PAGES}, `durable: true`, started again")
        ),
    ],
)
def test_torn_and_reordered_pages(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    if os.getuid() != 0:
        pytest.skip("another start of the machine can be pretended by root only")
    machine = trial.folder / "boot_id"
    machine.write_text(f"{uuid.uuid4()}\n")
    trial.machine = machine
    line = recorded(trial, durable=durable)
    machine.write_text(f"{uuid.uuid4()}\n")

    monkeypatch.setattr(power_cut, "_BOOT_ID", machine)
    product = load_products(load_config(trial.config), trial.config)[None]
    chance = random.Random(SEED)
    changes = Recording(line.changes)
    tried: Counter[str] = Counter()
    for place in sorted(chance.sample(range(1, len(changes)), CUTS)):
        cut = changes.cut(place, chance)
        try:
            tried.update(check_disk(line, cut, tmp_path / "laid", product, durable=durable))
        except Exception as error:
            error.add_note(f"cut after {place} of {len(changes)} changes, seed {SEED}")
            raise
    assert tried.keys() >= {"verdicts", "subscribers", "captured", "pictures"}
    assert ("lost" in tried) != durable

    # The line itself goes on with the last disk.
    shutil.rmtree(line.folder)
    changes.cut(len(changes), chance).lay(line.folder, line.folder)
    boot = trial.verdicts[0].boot
    last = max((verdict.seq for verdict in journaled(trial.journal) if verdict.boot == boot), default=0)
    half_written = set(_half_written(line.folder))
    trial.launch()
    gate = Gate(trial.content["control"])
    trial.detected(health("another boot", lambda h: h.boot != boot))
    trial.recovered()
    trial.wait_until(lambda: len([verdict for verdict, _ in gate.given if verdict.boot != boot]) > 20)
    gate.end()
    assert not half_written & set(_half_written(line.folder)), "what was half written is still there"
    trial.finish(possible={("top", "shutdown")}, lost_in_power_cut=(boot, last))
