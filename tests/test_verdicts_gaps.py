from hypothesis import given
from hypothesis import strategies as st

from verdicts.gaps import Gaps, Lost

BOOTS = st.sampled_from(["a", "b", "c"])


def test_joining_late_is_no_loss() -> None:
    assert Gaps().verdict("a", 17) == (True, None)
    assert Gaps().health("a", 17) is None


def test_a_gap_is_reported_once() -> None:
    gaps = Gaps()
    gaps.verdict("a", 1)
    assert gaps.verdict("a", 4) == (True, Lost("a", 2, 3))
    assert gaps.verdict("a", 4) == (False, None)
    assert gaps.verdict("a", 3) == (False, None)
    assert gaps.verdict("a", 5) == (True, None)


def test_health_shows_a_lost_tail() -> None:
    gaps = Gaps()
    gaps.verdict("a", 1)
    assert gaps.health("a", 1) is None
    assert gaps.health("a", 3) == Lost("a", 2, 3)
    assert gaps.health("a", 3) is None
    assert gaps.verdict("a", 4) == (True, None)


def test_a_later_boot_counts_from_one() -> None:
    gaps = Gaps()
    gaps.verdict("a", 9)
    assert gaps.verdict("b", 3) == (True, Lost("b", 1, 2))
    assert gaps.health("c", 0) is None
    assert gaps.verdict("c", 1) == (True, None)


def test_a_daemon_that_starts_over_and_over_fills_no_memory() -> None:
    gaps = Gaps()
    for start in range(10_000):
        assert gaps.verdict(f"{start}", 1) == (True, None)
    assert len(gaps._last) <= 16


@st.composite
def receptions(draw: st.DrawFn) -> list[tuple[bool, str, int]]:
    """What one subscriber receives: lossy, repeating, shuffled over boots, (is health, boot, seq)."""
    published = draw(st.lists(st.tuples(st.booleans(), BOOTS), max_size=60))
    counts: dict[str, int] = {}
    messages = []
    for is_health, boot in published:
        counts[boot] = counts.get(boot, 0) + (not is_health)
        messages.append((is_health, boot, counts[boot]))
    copies = draw(st.lists(st.integers(0, 2), min_size=len(messages), max_size=len(messages)))
    received = [message for message, times in zip(messages, copies, strict=True) for _ in range(times)]
    for _ in range(draw(st.integers(0, 3)) if received else 0):
        stray = received.pop(draw(st.integers(0, len(received) - 1)))
        received.insert(draw(st.integers(0, len(received))), stray)
    return received


@given(receptions())
def test_all_that_was_published_is_new_once_or_lost_once(received: list[tuple[bool, str, int]]) -> None:
    gaps = Gaps()
    accounted: list[tuple[str, int]] = []
    for is_health, boot, seq in received:
        if is_health:
            new, lost = False, gaps.health(boot, seq)
        else:
            new, lost = gaps.verdict(boot, seq)
        if lost is not None:
            assert lost.first <= lost.last
            accounted += [(lost.boot, number) for number in range(lost.first, lost.last + 1)]
        accounted += [(boot, seq)] if new else []

    expected: set[tuple[str, int]] = set()
    for _, boot, seq in received:
        joined_at = received[0][2] + received[0][0] if boot == received[0][1] else 1
        expected |= {(boot, number) for number in range(joined_at, seq + 1)}
    assert sorted(accounted) == sorted(expected)
