"""One fault on one line: a real daemon, what it said and when, and what became of every frame it captured."""

import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml
import zmq
from connections import Connections
from line_rig import COMMANDS, camera_processes, write_config
from patience import PATIENCE_S

from daemon.capture.counter import read_counter
from daemon.journal.audit import audit
from daemon.journal.reader import JournalReader
from verdicts import Health, Verdict, decode
from verdicts.verdict import Reason, decode_verdict

BELT = {"source": "simulated://?width=64&height=64&cached=4", "fps": 100, "waiting": 1000}
"""A camera whose frames may wait for ten seconds, so that a busy machine alone makes no fault."""
STEADY = 10
"""Judged parts in a row, without a fault among them, that make a camera a recovered one."""

Message = Verdict | Health
Faults = set[tuple[str, Reason]]


class Sign(NamedTuple):
    """How a message tells of a fault."""

    label: str
    shows: Callable[[Message], bool]


def faulted(reason: Reason, camera: str = "top") -> Sign:
    """Say that a verdict is a fault for this reason."""
    return Sign(
        f"verdict: fault, {reason}",
        lambda message: isinstance(message, Verdict) and (message.camera, message.reason) == (camera, reason),
    )


def health(label: str, shows: Callable[[Health], bool]) -> Sign:
    """Say that a health shows something."""
    return Sign(f"health: {label}", lambda message: isinstance(message, Health) and shows(message))


JOURNAL_FAILED = health(
    "journal failed", lambda health: health.journal is not None and health.journal.state == "failed"
)


@dataclass
class Row:
    """A row of the table; times are milliseconds since the fault was brought about."""

    group: str
    fault: str
    told_by: str | None = None
    detected_ms: float | None = None
    lost: int | None = None
    duplicates: int | None = None
    recovered_ms: float | None = None
    longest_pause_ms: float | None = None
    exit_code: int | None = None
    exit_ms: float | None = None
    verdicts: int = 0
    not_run: str | None = None


class Trial:
    """A daemon over all its starts, with a journal and a control socket, and one subscriber to its verdicts.

    A test starts it, brings a fault about (``inject``), waits until it is told (``detected``) and over
    (``recovered``, ``uninterrupted`` or ``exited``), and accounts for all frames (``finish``).
    """

    def __init__(self, folder: Path, row: Row) -> None:
        self.folder = folder
        self.row = row
        self.rows = [row]
        self.config = folder / "line3.yaml"
        self.journal = folder / "line3.journal"
        self.log_file = folder / "stderr.txt"
        self.log_file.touch()
        self.messages: list[tuple[float, Message]] = []
        self.machine: Path | None = None
        """A file with what the daemon is to find as the name of this start of the machine."""
        self.finished = False
        self._captured: Counter[tuple[str, str]] = Counter()
        self._injected_s = 0.0
        self._told_s = 0.0
        self._behind: dict[tuple[str, str], int] = {}
        self._context = zmq.Context()
        self._subscriber = self._context.socket(zmq.SUB)
        self._subscriber.rcvhwm = 0
        self._subscriber.reconnect_ivl = 10
        self._subscriber.reconnect_ivl_max = 50
        self._subscriber.subscribe(b"")
        self._connections = Connections(self._subscriber)

    # The daemon.

    def configure(self, cameras: Mapping[str, Any], **keys: Any) -> None:
        """Write the config."""
        keys = {
            "journal": {"file": str(self.journal)},
            "control": f"ipc://{self.folder}/control",
            "threads": 1,
        } | keys
        write_config(self.folder, dict(cameras), **keys)
        self.content: dict[str, Any] = yaml.safe_load(self.config.read_text())
        if self.content.get("journal"):
            self.journal = self.folder / self.content["journal"]["file"]

    def reconfigure(self, **keys: Any) -> None:
        """Change keys of the config; the daemon is not told."""
        self.config.write_text(yaml.safe_dump(self.content | keys, sort_keys=False))

    def start(
        self,
        cameras: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        keys: tuple[bytes, bytes, bytes] | None = None,
        **config: Any,
    ) -> None:
        """Write the config, start the daemon and wait until some parts of every camera are judged."""
        self.configure(cameras, **config)
        self.launch(environment)
        if keys is not None:  # our public and secret one, and the line's public one
            self._subscriber.curve_publickey, self._subscriber.curve_secretkey = keys[:2]
            self._subscriber.curve_serverkey = keys[2]
        self.connect()
        for camera in cameras:
            self._steady_since(camera, 0)

    def connect(self) -> None:
        """Listen to the daemon from now on."""
        self._subscriber.connect(self.content["publish"])

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the daemon, for the first time or once more."""
        command = [str(COMMANDS / "inspectd"), "--config", str(self.config)]
        if self.machine is not None:  # it alone sees another /proc
            mounted = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mounted, str(self.machine), *command]
        with self.open_log() as log:
            self.process = subprocess.Popen(
                command,
                stderr=log,
                env=os.environ | (environment or {}),
            )

    def open_log(self) -> IO[bytes]:
        """Open what the daemon writes its log into."""
        return self.log_file.open("ab")

    def send(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        self.process.send_signal(number)

    def camera_process(self, camera: str = "top") -> int:
        """Find the present process of a camera by the file in which it counts its frames."""
        for pid in camera_processes(self.process):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            counter = Path(f"/proc/{pid}/fd/{command[-2].decode()}").readlink()
            if counter.name.endswith(f".{camera}.captured"):
                return pid
        raise AssertionError(f"camera {camera} has no process")

    @property
    def log(self) -> str:
        """What the daemon wrote to stderr, in all its starts."""
        return self.log_file.read_text()

    # What it says.

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts that came over the wire."""
        return [message for _, message in self.messages if isinstance(message, Verdict)]

    @property
    def health(self) -> Health:
        """The newest health."""
        return next(message for _, message in reversed(self.messages) if isinstance(message, Health))

    def listen(self, timeout_ms: int = 0) -> bool:
        """Take one message; whether there was one."""
        if not self._subscriber.poll(timeout_ms):
            return False
        topic, payload = self._subscriber.recv_multipart()
        self.messages.append((time.monotonic(), decode(topic, payload)))
        return True

    def wait_for(self, sign: Sign, *, since_s: float | None = None) -> tuple[float, Message]:
        """Give the first message since then (or the fault) that shows a sign, and when it came."""
        since_s = self._injected_s if since_s is None else since_s
        give_up_s = time.monotonic() + PATIENCE_S
        index = 0
        while True:
            while index < len(self.messages):
                came_s, message = self.messages[index]
                index += 1
                if came_s >= since_s and sign.shows(message):
                    return came_s, message
            assert time.monotonic() < give_up_s, (
                f"{sign.label}: not within {PATIENCE_S:g} s; last: {self.messages[-1:]}\n{self.log[-2000:]}"
            )
            self.listen(100)

    def wait_for_log(self, text: str) -> float:
        """Wait until the daemon has logged a text since the fault, and give the time."""
        give_up_s = time.monotonic() + PATIENCE_S
        while text not in self.log[self._log_length :]:
            assert time.monotonic() < give_up_s, f"not logged: {text!r}\n{self.log[-2000:]}"
            self.listen(10)
        return time.monotonic()

    def wait_for_captured(self, more: int) -> None:
        """Wait until every camera has captured so many more frames, by its own count."""
        wanted = {file: count[1] + more for file, count in self._counts()}
        give_up_s = time.monotonic() + PATIENCE_S
        while any(count[1] < wanted[file] for file, count in self._counts()):
            assert time.monotonic() < give_up_s, "the cameras capture nothing"
            time.sleep(0.01)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Listen until something is so."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, "it never came to be so"
            self.listen(10)

    def _counts(self) -> list[tuple[Path, tuple[str, int]]]:
        files = self.journal.parent.glob("*.captured")
        return [(file, count) for file in files if (count := read_counter(file)) is not None]

    @staticmethod
    def ahead_s(health: Health) -> float:
        """By how many seconds the daemon's wall clock is ahead of ours."""
        return _seconds(health.sent_at) - time.time()

    # The fault.

    def another(self, fault: str) -> None:
        """Go on with another fault on the same line; what is measured from now on is a row of its own."""
        self.row.verdicts = len(self.verdicts) - sum(row.verdicts for row in self.rows[:-1])
        self.row.lost = self.row.duplicates = 0  # ``finish`` accounts for the frames of all of them
        self.row = Row(self.row.group, fault)
        self.rows.append(self.row)

    def inject(self) -> None:
        """Note that the fault is brought about now."""
        while self.listen():
            pass
        self._log_length = len(self.log)
        self._injected_s = time.monotonic()

    def injected_after(self, frame: int, camera: str = "top") -> None:
        """Note that the fault came after this frame, from whose capture on its detection is counted."""
        self._log_length = 0
        _, message = self.wait_for(
            Sign(
                f"frame {frame} of {camera}",
                lambda m: isinstance(m, Verdict) and (m.camera, m.frame) == (camera, frame),
            ),
            since_s=0,
        )
        assert isinstance(message, Verdict)
        # Not when the next frame was due: where this one was late, the next comes before that.
        self._injected_s = _seconds(message.captured_at) - time.time() + time.monotonic()

    def detected(self, sign: Sign) -> Message:
        """Measure how long it took until a message told of the fault."""
        came_s, message = self.wait_for(sign)
        self._note_detection(sign.label, came_s)
        return message

    def detected_in_log(self, text: str) -> None:
        """Measure how long it took until the log told of the fault."""
        self._note_detection("log", self.wait_for_log(text))

    def detected_by(self, label: str, condition: Callable[[], object]) -> None:
        """Measure how long it took until somebody else told of the fault."""
        self.wait_until(lambda: bool(condition()))
        self._note_detection(label, time.monotonic())

    def detected_by_audit(self) -> None:
        """Measure how long it took until somebody who audits the journal knew."""
        done = subprocess.run(
            [COMMANDS / "inspectctl", "audit", self.journal], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stdout + done.stderr
        self._note_detection("`inspectctl audit`", time.monotonic())

    def told_by_command(self, command: str) -> None:
        """Measure how long it took until a command that has just ended told of the fault."""
        self._note_detection(command, time.monotonic())

    def not_told(self) -> None:
        """Note that there is nothing to tell of: nothing but the one who makes the fault has any harm."""
        self._note_detection("nothing to tell", self._injected_s)

    def _note_detection(self, told_by: str, came_s: float) -> None:
        self._told_s = came_s
        self.row.told_by = told_by
        detected_ms = round((came_s - self._injected_s) * 1000, 1)
        self.row.detected_ms = None if told_by == "nothing to tell" else detected_ms
        for at_s, message in self.messages:
            if at_s <= came_s:
                self._pass_by(message)

    def _pass_by(self, message: Message) -> None:
        """Frames up to here were captured before the fault was known."""
        seen = (
            {message.camera: message.frame}
            if isinstance(message, Verdict)
            else {name: camera.captured for name, camera in message.cameras.items()}
        )
        for camera, frame in seen.items():
            key = (message.boot, camera)
            self._behind[key] = max(frame, self._behind.get(key, 0))

    def recovered(self, *cameras: str, healthy: bool = True) -> None:
        """Measure how long it took until parts captured after the detection are judged again."""
        recovered_s = max(self._steady_since(camera, self._told_s) for camera in cameras or ("top",))
        self.row.recovered_ms = round((recovered_s - self._injected_s) * 1000, 1)
        if healthy:
            self.wait_for(health("running", lambda h: h.state == "running"), since_s=recovered_s)

    def recovered_when(self, sign: Sign) -> None:
        """Measure how long it took until a message said that the fault is over."""
        came_s, _ = self.wait_for(sign, since_s=self._told_s)
        self.row.recovered_ms = round((came_s - self._injected_s) * 1000, 1)

    def _steady_since(self, camera: str, since_s: float) -> float:
        streak = 0

        def shows(message: Message) -> bool:
            nonlocal streak
            if not isinstance(message, Verdict) or message.camera != camera:
                return False
            if message.frame <= self._behind.get((message.boot, camera), 0):
                return False
            streak = 0 if message.decision == "fault" else streak + 1
            return streak == STEADY

        came_s, message = self.wait_for(Sign(f"{camera} judged again", shows), since_s=since_s)
        assert isinstance(message, Verdict)
        run = [
            at_s
            for at_s, m in self.messages
            if since_s <= at_s <= came_s
            and isinstance(m, Verdict)
            and (m.boot, m.camera) == (message.boot, camera)
            and m.decision != "fault"
        ]
        return run[-STEADY]

    def uninterrupted(self, *cameras: str, verdicts: int = 100) -> None:
        """Wait for so many verdicts while the fault lasts, and measure the longest pause between two."""
        pauses = []
        for camera in cameras or ("top",):
            came = [self._injected_s]

            def shows(message: Message, camera: str = camera, came: list[float] = came) -> bool:
                return isinstance(message, Verdict) and message.camera == camera

            while len(came) <= verdicts:
                at_s, _ = self.wait_for(Sign(f"verdicts of {camera}", shows), since_s=came[-1] + 1e-9)
                came.append(at_s)
            pauses.append(max(b - a for a, b in itertools.pairwise(came)))
        self.row.longest_pause_ms = round(max(pauses) * 1000, 1)

    def exited(self, code: int) -> None:
        """Measure how long it took until the daemon ended as it should."""
        give_up_s = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < give_up_s, f"has not ended\n{self.log[-2000:]}"
            self.listen(10)
        self.row.exit_ms = round((time.monotonic() - self._injected_s) * 1000, 1)
        self.row.exit_code = self.process.returncode
        assert self.process.returncode == code, self.log[-2000:]
        self.note_end()

    def killed(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill the daemon with all it has in memory."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        self.note_end()

    def note_end(self) -> None:
        """Hear the last words of a daemon that has ended, and note what its cameras counted."""
        self._connections.wait_until_gone()
        while self.listen():
            pass
        for file, (boot, captured) in self._counts():
            camera = file.name.removesuffix(".captured").rpartition(".")[2]
            self._captured[boot, camera] = max(captured, self._captured[boot, camera])

    # The account.

    def finish(
        self,
        *,
        faults: Iterable[tuple[str, Reason]] = (),
        possible: Iterable[tuple[str, Reason]] = (),
        journal_complete: bool = True,
        journal_intact: bool = True,
        lost_in_power_cut: tuple[str, int] | None = None,
    ) -> None:
        """End the daemon in order if it runs, and account for every frame of all its starts.

        Args:
            faults: cameras and reasons of the fault verdicts that there must be.
            possible: those that there may be, too; there may be no others.
            journal_complete: whether all published verdicts have to be in the journal.
            journal_intact: whether it can still be read and audited; otherwise the wire has to have them all.
            lost_in_power_cut: a boot, and its last verdict that the journal has; what it published after that
                is lost, and told to be so. Its numbers go on after a gap.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            give_up_s = time.monotonic() + PATIENCE_S
            while self.process.poll() is None:
                assert time.monotonic() < give_up_s, self.log[-2000:]
                self.listen(10)
            assert self.process.returncode == 0, self.log[-2000:]
            self.note_end()
        assert "Traceback" not in self.log, self.log[-4000:]
        last: dict[str, Health] = {}
        for _, message in self.messages:
            if isinstance(message, Health):
                last[message.boot] = message
                for name, health in message.cameras.items():
                    key = (message.boot, name)
                    self._captured[key] = max(health.captured, self._captured[key])
        written = self._journaled() if journal_intact else []
        wire = {(v.boot, v.seq): v for v in self.verdicts}
        heard = len(wire)
        told_lost = set() if lost_in_power_cut is None else self._told_lost(*lost_in_power_cut, written)
        wire = {key: verdict for key, verdict in wire.items() if key not in told_lost}
        both = wire | {(v.boot, v.seq): v for v in written}
        for verdict in written:
            assert wire.get((verdict.boot, verdict.seq), verdict) == verdict, "wire and journal disagree"
        frames = Counter((v.boot, v.camera, v.frame) for v in both.values())
        for boot, camera, frame in frames:
            # Of a camera that has left, nobody has told what it captured after the last health with it.
            if boot in last and camera not in last[boot].cameras:
                self._captured[boot, camera] = max(frame, self._captured[boot, camera])
        captured = {
            (boot, camera, frame)
            for (boot, camera), last in self._captured.items()
            for frame in range(1, last + 1)
        }
        unknown = sorted(frames.keys() - captured)
        assert not unknown, f"verdicts on frames that were never captured: {unknown[:20]}"
        # What was published and is not in the journal would be lost for whoever asks for it later.
        unwritten = (
            wire.keys() - {(v.boot, v.seq) for v in written} if journal_complete and journal_intact else set()
        )
        self.row.verdicts = len(both) - sum(row.verdicts for row in self.rows[:-1])
        unexpected = len(captured - frames.keys()) + len(unwritten)
        self.row.lost = unexpected + len(told_lost)
        self.row.duplicates = (
            (len(self.verdicts) - heard)
            + (len(both) - len(frames))
            + (len(written) - len({(v.boot, v.seq) for v in written}))
        )
        self.finished = True
        assert unexpected == 0, f"lost: {sorted(captured - frames.keys())[:20]} {sorted(unwritten)[:20]}"
        assert self.row.duplicates == 0, f"duplicates: {self.row.duplicates}"
        ends = {} if lost_in_power_cut is None else dict([lost_in_power_cut])
        for boot in {boot for boot, _ in both}:
            seqs = sorted(seq for b, seq in both if b == boot and seq <= ends.get(boot, seq))
            assert seqs == list(range(1, len(seqs) + 1)), "seq has gaps"
        found = {(v.camera, v.reason) for v in both.values() if v.reason is not None}
        assert set(faults) <= found <= {*faults, *possible}, f"faults: {sorted(found)}"
        if journal_intact and self.journal.exists():  # else the daemon did not come so far
            result = audit(self.journal)
            assert result.intact, result.broken

    def _told_lost(self, boot: str, last_seq: int, written: list[Verdict]) -> set[tuple[str, int]]:
        """List what a power cut has taken out of the journal; its cameras' counts went with it."""
        lost = {(v.boot, v.seq) for v in self.verdicts if v.boot == boot and v.seq > last_seq}
        lost -= {(v.boot, v.seq) for v in written}
        known = [*(v for v in self.verdicts if (v.boot, v.seq) not in lost), *written]
        for key in [key for key in self._captured if key[0] == boot]:
            self._captured[key] = max((v.frame for v in known if (v.boot, v.camera) == key), default=0)
        return lost

    def _journaled(self) -> list[Verdict]:
        if not self.journal.exists():
            return []
        with JournalReader(self.journal) as reader:
            return [decode_verdict(payload) for _, payload in reader.after(0, 10_000_000)]

    def close(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        self._context.destroy(linger=0)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
