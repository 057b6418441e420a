"""Collects pictures of good parts from a running line, out of what its archive keeps.

It subscribes as anybody may, and copies files: the line does not know of it, and waits for nothing.
"""

import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from foundation.errors import InputError, Unavailable
from foundation.files import write_whole
from foundation.yaml_file import read_yaml
from lines.line_config import LineConfig
from verdicts import LineSilent, MalformedMessage, Verdict, VerdictsLost, subscribe

NOTES: Final = "collected.json"
_OVERLAY: Final = ".overlay.jpg"
_PATIENCE: Final = 500
"""Verdicts after which a picture that is not there yet never will be: the archive left it out."""
_CERTAIN: Final = 40
"""So many pictures of passes are missing that it is no chance."""
_SILENCE_S: Final = 10.0


@dataclass
class Collected:
    """What came together in a folder, and what the line judged meanwhile.

    Attributes:
        engine_sha256: of the engine that judged.
        threshold: above which parts were rejected.
        with_rejects: whether rejected parts are among the pictures.
        passes: how many parts passed while somebody collected.
        rejects: how many were rejected.
    """

    engine_sha256: str
    threshold: float
    with_rejects: bool
    passes: int = 0
    rejects: int = 0


class Collecting:
    """Pictures of a line's parts that come together in a folder; it goes on where an earlier one ended."""

    def __init__(self, line: LineConfig, folder: Path, begun: Collected, model: str) -> None:
        """Prepare the folder.

        Args:
            line: its config.
            folder: where the pictures go; made when it is not there.
            begun: what is collected: by which engine and threshold.
            model: of the engine, as verdicts name it.

        Raises:
            InputError: the line keeps no pictures of passes, or the folder holds others or cannot be written.
        """
        self._line, self._model = line, model
        self._share, self._near_misses = _kept_passes(line)
        self._waiting: deque[tuple[Path, int]] = deque()
        self._seen = self._without = 0
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
        self.collected = _gone_on(folder, begun)
        self._count = sum(1 for _ in folder.glob("*.png"))
        self._write()

    def __len__(self) -> int:
        """Number of pictures in the folder."""
        return self._count

    def until(self, wanted: int, tell: Callable[[int, Collected], object]) -> None:
        """Collect until the folder holds so many pictures.

        Args:
            wanted: so many.
            tell: called with each verdict: how many pictures there are, and what was judged.

        Raises:
            Unavailable: the line does not answer, or its end has come.
            InputError: it judges by another engine or threshold than was collected by, or the folder cannot
                be written.
        """
        try:
            subscription = subscribe(
                self._line.publish,
                line=self._line.name,
                silence_s=_SILENCE_S,
                control=self._line.control,
                curve=self._line.curve,
            )
        except ValueError as error:
            raise InputError(f"{self._line.file}: {error}") from error
        try:
            with subscription:
                while len(self) < wanted:
                    try:
                        self._take(next(subscription))
                    except VerdictsLost:
                        continue  # fewer are counted, of passes and of rejects alike
                    except MalformedMessage as error:
                        raise InputError(f"{self._line.file}: {error}") from error
                    tell(len(self), self.collected)
        except LineSilent as silence:
            raise Unavailable(f"{self._line.file}: {silence}; {self.kept}") from silence
        finally:
            self._write()

    def _take(self, verdict: Verdict) -> None:
        collected = self.collected
        if verdict.decision == "fault" or verdict.score is None:
            return
        if verdict.model != self._model or verdict.threshold != collected.threshold:
            raise InputError(
                f"{self._line.file}: the line judges by {verdict.model}, threshold {verdict.threshold:.4g}, "
                f"expected {self._model}, {collected.threshold:.4g}, as its calibration says: reload the "
                f"line, or name the product; {self.kept}"
            )
        self._seen += 1
        passed = verdict.decision == "pass"
        collected.passes += passed
        collected.rejects += not passed
        if passed:
            self._refuse_unkept(verdict)
        if verdict.archive is not None and (passed or collected.with_rejects) and self._is_drawn(verdict):
            self._waiting.append((Path(verdict.archive), self._seen))
        self._fetch()

    def _refuse_unkept(self, verdict: Verdict) -> None:
        """Refuse a line that has not read the config that says how many passes it shall keep."""
        self._without = 0 if verdict.archive is not None else self._without + 1
        if self._without * self._share > _CERTAIN:
            raise InputError(
                f"{self._line.file}: archive.sample: found {self._share:g}, expected that the line has read "
                f"it, but it kept none of the last {self._without} passes: inspectctl reload; {self.kept}"
            )

    def _is_drawn(self, verdict: Verdict) -> bool:
        """Say whether a part is one of those that are drawn by chance.

        All rejects are archived, and all passes near the threshold where ``near_misses`` says so. Taken as
        they are they would be too many: each is drawn with the probability of the other passes.
        """
        assert verdict.score is not None
        near = verdict.threshold - self._near_misses * abs(verdict.threshold)
        sampled = verdict.decision == "pass" and not (self._near_misses and verdict.score >= near)
        return sampled or random.Random(f"{verdict.boot} {verdict.seq}").random() < self._share

    def _fetch(self) -> None:
        """Copy what the archive has written by now: it writes beside the line, after the verdict."""
        for _ in range(len(self._waiting)):
            overlay, since = self._waiting.popleft()
            name = overlay.name.removesuffix(_OVERLAY) + ".png"
            if overlay.exists():
                try:
                    content = overlay.with_name(name).read_bytes()
                except FileNotFoundError:
                    continue  # the archive needed the room
                write_whole(self.folder / name, content)
                self._count += 1
                self._write()
            elif self._seen - since < _PATIENCE:
                self._waiting.append((overlay, since))

    @property
    def kept(self) -> str:
        """Say what there is."""
        return f"{len(self)} pictures are kept in {self.folder}"

    def _write(self) -> None:
        write_whole(self.folder / NOTES, json.dumps(asdict(self.collected)).encode())


def _kept_passes(line: LineConfig) -> tuple[float, float]:
    """Give the share of passes that the archive keeps by chance, and how near the threshold it keeps all."""
    section = read_yaml(line.file, "the config of a line").content.get("archive")
    if line.archive is None or not isinstance(section, dict):
        raise InputError(
            f"{line.file}: archive: found no such section, expected archive: {{folder: DIR, sample: 0.1}}: "
            "pictures of passes come from there"
        )
    share, near = (section.get(key, 0) for key in ("sample", "near_misses"))
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(
            f"{line.file}: archive.sample: found {share!r:.20}, expected the share of passes that the line "
            "keeps, such as 0.1; then inspectctl reload"
        )
    return float(share), float(near) if isinstance(near, int | float) else 0.0


def _gone_on(folder: Path, begun: Collected) -> Collected:
    """Give what an earlier collecting left in a folder, or a new beginning."""
    file = folder / NOTES
    if not file.exists():
        if any(folder.iterdir()):
            raise InputError(f"{folder}: holds other files, expected a folder that only this command fills")
        return begun
    try:
        found = Collected(**json.loads(file.read_bytes()))
        same = (found.engine_sha256, found.threshold, found.with_rejects)
        counts = found.passes + found.rejects
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: expected what calibrate --camera wrote; remove the folder") from error
    if same != (begun.engine_sha256, begun.threshold, begun.with_rejects) or not isinstance(counts, int):
        raise InputError(
            f"{folder}: was collected by another engine, threshold or choice of parts; name another folder "
            "with --good, or remove this one"
        )
    return found
