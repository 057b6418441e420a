from hypothesis import given
from hypothesis import strategies as st

from daemon.journal.ranges import Ranges

NUMBERS = st.lists(st.integers(1, 60), max_size=80)


@given(NUMBERS, st.integers(1, 60), st.integers(1, 60))
def test_ranges_are_a_set(numbers: list[int], first: int, last: int) -> None:
    ranges, plain = Ranges(), set[int]()
    for number in numbers:
        assert ranges.add(number) == (number not in plain)
        plain.add(number)
    assert [n for a, b in ranges for n in range(a, b + 1)] == sorted(plain)
    assert all(number in ranges for number in plain) and 61 not in ranges
    assert ranges.count(first, last) == len([n for n in plain if first <= n <= last])
    inside = [n for a, b in ranges.gaps(first, last) for n in range(a, b + 1)]
    assert inside == [n for n in range(first, last + 1) if n not in plain]
    assert list(Ranges(list(ranges))) == list(ranges)


@given(NUMBERS, st.integers(1, 5))
def test_closing_gaps_keeps_every_number_and_the_highest_gaps(numbers: list[int], most: int) -> None:
    ranges = Ranges()
    for number in numbers:
        ranges.add(number)
    before = list(ranges)
    ranges.close_lowest_gaps(most)
    after = list(ranges)
    assert len(after) == min(most, len(before))
    assert all(number in ranges for number in numbers)
    assert after[1:] == before[len(before) - len(after) + 1 :]
