"""Which parts are on their way, and what the gate does where the belt is now. It knows no clock."""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import Final

MOST_PARTS: Final = 20_000
"""On their way, and a little behind the gate; when there are more, the oldest are forgotten."""

Key = tuple[str, int]


@dataclass(order=True, slots=True)
class Part:
    """One part that was judged.

    Attributes:
        target: the belt's position at which its middle is at the gate.
        key: boot and seq of its verdict.
        passes: whether it may pass; a verdict that came too late is none.
        known_s: when the verdict was known.
        late: whether it came after the part's place had reached the gate.
        done: whether its place has reached the gate.
    """

    target: float
    key: Key
    passes: bool = field(compare=False)
    known_s: float = field(compare=False)
    late: bool = field(compare=False, default=False)
    done: bool = field(compare=False, default=False)


class Parts:
    """The judged parts, by where they lie on the belt.

    What the gate does is a function of the belt's position alone, so it does not matter how the belt came
    there: slowly, after a stop, or backwards.
    """

    def __init__(self, half: float, keep: float) -> None:
        """Begin with none.

        Args:
            half: half the length of a part's place; where that reaches the gate, the gate acts.
            keep: how far behind the gate parts are remembered, in case the belt runs backwards.
        """
        self.half = half
        self.keep = keep
        self._parts: list[Part] = []
        self._keys: set[Key] = set()
        self._furthest = float("-inf")

    def __len__(self) -> int:
        return len(self._parts)

    def waiting(self) -> int:
        """Count the parts that have not reached the gate."""
        return sum(not part.done for part in self._parts)

    def add(self, target: float, key: Key, *, passes: bool, known_s: float, position: float) -> Part | None:
        """Take a part that was judged.

        Args:
            target: where it is at the gate.
            key: boot and seq of its verdict.
            passes: whether it may pass.
            known_s: when that became known.
            position: where the belt is now.

        Returns:
            The part; None for one that is known.
        """
        if key in self._keys:
            return None
        reached = self._furthest >= target - self.half or position >= target - self.half
        part = Part(target, key, passes and not reached, known_s, late=reached, done=reached)
        self._insert(part)
        return part

    def add_behind(self, target: float, key: Key, *, passes: bool, known_s: float) -> None:
        """Take a part that has reached the gate before: it may lie there, or come back."""
        if key not in self._keys:
            self._insert(Part(target, key, passes, known_s, done=True))

    def _insert(self, part: Part) -> None:
        insort(self._parts, part)
        self._keys.add(part.key)
        if len(self._parts) > MOST_PARTS:
            self._keys.discard(self._parts.pop(0).key)

    def lets_through(self, position: float) -> bool:
        """Tell whether a part that may pass is at the gate, and none that may not."""
        here = self._near(position)
        return bool(here) and all(part.passes for part in here)

    def throws_out(self, position: float) -> bool:
        """Tell whether a part that may not pass is at the gate."""
        return any(not part.passes for part in self._near(position))

    def reached(self, position: float) -> list[Part]:
        """Give the parts whose place has reached the gate since the last call; each once."""
        if position <= self._furthest:
            return []
        begin = bisect_left(self._parts, self._furthest + self.half, key=lambda part: part.target)
        came = []
        for part in self._parts[begin:]:
            if part.target - self.half > position:
                break
            if not part.done:
                part.done = True
                came.append(part)
        self._furthest = position
        return came

    def next_edge(self, position: float, *, forwards: bool) -> float | None:
        """Give the next position at which a part's place begins or ends; None without one."""
        edges = []
        index = bisect_left(self._parts, position - self.half, key=lambda part: part.target)
        if forwards:
            for part in self._parts[index : index + 8]:
                edges += [
                    edge for edge in (part.target - self.half, part.target + self.half) if edge > position
                ]
            return min(edges, default=None)
        for part in self._parts[max(0, index - 8) : index + 8]:
            edges += [edge for edge in (part.target - self.half, part.target + self.half) if edge <= position]
        return max(edges, default=None)

    def forget(self, position: float) -> None:
        """Forget what lies too far behind the gate to come back."""
        end = bisect_left(self._parts, position - self.half - self.keep, key=lambda part: part.target)
        for part in self._parts[:end]:
            self._keys.discard(part.key)
        del self._parts[:end]

    def clear(self) -> None:
        """Forget all: where they lie is no longer known, so none of them may pass."""
        self._parts.clear()
        self._keys.clear()
        self._furthest = float("-inf")

    def _near(self, position: float) -> list[Part]:
        """Give the parts whose place is at the gate; its beginning belongs to it, its end does not."""
        begin = bisect_right(self._parts, position - self.half, key=lambda part: part.target)
        near = []
        for part in self._parts[begin:]:
            if part.target > position + self.half:
                break
            near.append(part)
        return near
