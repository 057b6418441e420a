"""A slow and strict reader of baseline JPEG, which says what no valid picture has.

It decodes nothing to pixels. It judges what `decode_jpeg` lets pass: whether that could be told from an
intact picture at all.
"""

import struct
from typing import NamedTuple

_STANDALONE = {0x01, *range(0xD0, 0xD8)}


class _Component(NamedTuple):
    key: int
    across: int
    down: int


class _Frame(NamedTuple):
    size: tuple[int, int]
    components: list[_Component]
    interval: int


class _Invalid(Exception):
    pass


class _Bits:
    """The bits of one restart interval, without its stuffing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._length = len(data) * 8

    def take(self, count: int) -> int:
        if self._at + count > self._length:
            raise _Invalid("more pixels than data")
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def must_be_used_up(self) -> None:
        left = self._length - self._at
        if left > 7 or self.take(left) != (1 << left) - 1:
            raise _Invalid("more data than pixels")


def fault_of(data: bytes) -> str | None:
    """Say what is wrong with a baseline JPEG; None when it is valid, or of a kind not read here."""
    try:
        _walk(data)
    except _Invalid as error:
        return str(error)
    except (IndexError, struct.error, KeyError):
        return "a segment is cut short, or a table is missing"
    return None


def _walk(data: bytes) -> None:
    tables: dict[int, dict[tuple[int, int], int]] = {}
    components: list[_Component] = []
    size, interval, at = (0, 0), 0, 2
    if data[:2] != b"\xff\xd8":
        raise _Invalid("no JPEG")
    while True:
        if data[at] != 0xFF:
            raise _Invalid("no marker after a segment")
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker == 0xC4:
            _read_tables(body, tables)
        elif marker in {0xC0, 0xC1}:
            size = struct.unpack_from(">HH", body, 1)
            components = [
                _Component(body[6 + 3 * i], body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15)
                for i in range(body[5])
            ]
        elif marker == 0xC2:
            return  # progressive
        elif marker == 0xDD:
            (interval,) = struct.unpack(">H", body)
        elif marker == 0xDA:
            if body[0] != len(components):
                return  # a scan for each component
            _read_scan(data, at + 2 + length, _Frame(size, components, interval), body, tables)
            return
        at += 2 + length


def _read_tables(body: bytes, tables: dict[int, dict[tuple[int, int], int]]) -> None:
    at = 0
    while at < len(body):
        counts, place, code = body[at + 1 : at + 17], at + 17, 0
        table = tables[body[at]] = {}
        for bits, count in enumerate(counts, 1):
            for symbol in body[place : place + count]:
                table[bits, code] = symbol
                code += 1
            place += count
            code <<= 1
        at = place


def _read_scan(
    data: bytes, at: int, frame: _Frame, head: bytes, tables: dict[int, dict[tuple[int, int], int]]
) -> None:
    size, components, interval = frame
    height, width = size
    across, down = max(c.across for c in components), max(c.down for c in components)
    left = -(-width // (8 * across)) * -(-height // (8 * down))
    using = {head[1 + 2 * i]: head[2 + 2 * i] for i in range(head[0])}
    expected = 0
    while left > 0:
        entropy, at, marker = _until_marker(data, at)
        bits, count = _Bits(entropy), min(interval or left, left)
        before = dict.fromkeys(using, 0)
        for _ in range(count):
            for component in components:
                choice = using[component.key]
                for _ in range(component.across * component.down):
                    before[component.key] += _read_block(
                        bits, tables[choice >> 4], tables[0x10 | choice & 15]
                    )
                    if not -2048 <= before[component.key] < 2048:
                        raise _Invalid("a mean that no block has")
        bits.must_be_used_up()
        left -= count
        if marker != (0xD0 + expected if left else 0xD9):
            raise _Invalid("another marker than expected")
        expected = (expected + 1) % 8


def _until_marker(data: bytes, at: int) -> tuple[bytes, int, int]:
    end = at
    while not (data[end] == 0xFF and data[end + 1] != 0):
        end += 1
    marker = end
    while data[marker + 1] == 0xFF:
        marker += 1
    return data[at:end].replace(b"\xff\0", b"\xff"), marker + 2, data[marker + 1]


def _read_block(bits: _Bits, dc: dict[tuple[int, int], int], ac: dict[tuple[int, int], int]) -> int:
    size = _read_symbol(bits, dc)
    if size > 11:
        raise _Invalid("a difference that no block has")
    difference, index = _signed(bits.take(size), size), 1
    while index < 64:
        symbol = _read_symbol(bits, ac)
        run, size = symbol >> 4, symbol & 15
        if size == 0 and run != 15:
            if run:
                raise _Invalid("a code that baseline pictures have not")
            break
        index += run + 1
        if index > 64 or size > 10:
            raise _Invalid("a block of more than 64 values")
        bits.take(size)
    return difference


def _read_symbol(bits: _Bits, table: dict[tuple[int, int], int]) -> int:
    code = 0
    for length in range(1, 17):
        code = code << 1 | bits.take(1)
        if (length, code) in table:
            return table[length, code]
    raise _Invalid("a code that is not in the table")


def _signed(value: int, size: int) -> int:
    return value if size == 0 or value >> (size - 1) else value - (1 << size) + 1
