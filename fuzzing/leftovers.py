"""Small files that an earlier daemon left: counts of captured frames, and subscribers' positions."""

from pathlib import Path

from daemon.capture.counter import CaptureCounter, read_counter
from daemon.control.positions import Positions
from foundation.errors import InputError
from fuzzing.mutation import mutate_bytes, mutate_json
from fuzzing.target import Chance, must_be_one_line


class Target:
    """A counter is read or is none; positions are read, or refused in one line."""

    documented = (InputError,)
    longest = 8192
    words = ("inspectd count 1", '"version": 1', '"acknowledged":', "{", "}", "null")

    def __init__(self, folder: Path) -> None:
        self._counter, self._positions = folder / "captured", folder / "subscribers"

    def seeds(self) -> list[bytes]:
        CaptureCounter.create(self._counter, "0123abcd").close()
        positions = Positions(self._positions)
        positions["gate"], positions["plc"] = 17, 0
        positions.write(_hash_of, at_once=True)
        return [self._counter.read_bytes(), self._positions.read_bytes()]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return mutate_json(data, chance) if data[:1] == b"{" else mutate_bytes(data, chance)

    def run(self, data: bytes) -> None:
        self._counter.write_bytes(data)
        counted = read_counter(self._counter)
        assert counted is None or (0 < len(counted[0]) <= 64 and counted[1] >= 0)
        self._positions.write_bytes(data)
        try:
            positions = Positions(self._positions)
        except InputError as error:
            must_be_one_line(error, self._positions)
            raise
        for name in positions.names():
            positions.agrees(name, _hash_of)
        read = {name: positions[name] for name in positions.names()}
        positions["one-more"] = 1
        positions.write(_hash_of, at_once=True)
        again = Positions(self._positions)
        assert {name: again[name] for name in again.names()} == read | {"one-more": 1}


def _hash_of(row: int) -> bytes:
    return bytes([row % 256]) * 32
