"""Changes that keep an input's structure, so that they reach what lies behind the parser."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from fuzzing.target import Chance

_HOLE = "\ue000"
"""Stands in a text for what no JSON writer would write."""

ODD_JSON: Sequence[str] = (
    "null", "true", "false", "0", "-0", "1", "-1", "1.0", "0.1", "1e400", "-1e-400", "1e308", "NaN",
    "Infinity", "9007199254740991", "9007199254740992", "18446744073709551616", "[]", "{}", "[[]]", '[null]',
    '{"":0}', '""', '" "', '"-"', '"\\n"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"é"',
    '"2026-02-30T00:00:00.000000Z"', '"0001-01-01T00:00:00.000000Z"', '"9999-12-31T23:59:59.999999Z"',
    '"2026-01-31T12:00:00.123456+00:00"', '"../../x"', '"a/b"', '"%s%n"', '"00"', '"' + "a" * 64 + '"',
    '"' + "a" * 65 + '"',
)  # fmt: skip


def odd_json(chance: Chance) -> str:
    """Write a JSON value that few expect."""
    match chance.randrange(12):
        case 0:
            depth = chance.choice((1, 2, 30, chance.randrange(150, 1100)))
            opening, closing = chance.choice((("[", "]"), ('{"a":', "}")))
            return opening * depth + "0" + closing * depth
        case 1:
            return chance.choice(("9", "-1", "0.")) + "9" * chance.choice((20, 400, 4300, 5000))
        case 2:
            return '"' + chance.choice(("x", "é", "\\u0001")) * chance.choice((64, 300, 2000)) + '"'
        case 3:
            return str(chance.randrange(-(2**66), 2**66) >> chance.randrange(60))
    return chance.choice(ODD_JSON)


def mutate_json(data: bytes, chance: Chance) -> bytes:
    """Change one or two places of a JSON text; what is none comes back with a few other bytes."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, chance)
    holes: list[str] = []
    for _ in range(chance.randrange(1, 3)):
        content = _changed(content, chance, holes)
    try:
        text = json.dumps(content, ensure_ascii=chance.random() < 0.3, separators=(",", ":"))
    except (ValueError, RecursionError):
        return mutate_bytes(data, chance)
    text = text.replace(json.dumps(_HOLE), f'"{_HOLE}"')
    for odd in holes:
        text = text.replace(f'"{_HOLE}"', odd, 1)
    if chance.random() < 0.05:
        text = text.replace("{", '{"schema":1,', 1)  # a key that stands twice
    return text.encode(errors="replace")


def _changed(content: Any, chance: Chance, holes: list[str]) -> Any:
    places = list(_places(content))
    if not places:
        holes.append(odd_json(chance))
        return _HOLE
    container, key = chance.choice(places)
    if chance.random() < 0.4:
        container[key] = _alike(container[key], chance)
        return content
    match chance.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[chance.choice(("", "more", "x" * 65, "a\nb", "-", key.upper()))] = container[key]
        case 1:
            container.extend([container[key]] * chance.choice((1, 1, 200)))
        case 2:
            other, other_key = chance.choice(places)
            container[key] = other[other_key] if other is not container[key] else None
        case _:
            container[key] = _HOLE
            holes.append(odd_json(chance))
    return content


def _alike(value: Any, chance: Chance) -> Any:
    """Give another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice(
                (value + 1, max(0, value - 1), chance.randrange(10), chance.randrange(2**53))
            )
        case float():
            return chance.choice((value * 2, -value, chance.uniform(-1e9, 1e9)))
        case str() if value:
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(("", value[at] * 2, chance.choice("a0_.-:é"))) + value[at + 1 :]
    return value


def _places(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    containers = [content]
    while containers and len(found) < 500:
        container = containers.pop()
        if isinstance(container, dict):
            entries: list[tuple[Any, Any]] = list(container.items())
        elif isinstance(container, list):
            entries = list(enumerate(container))
        else:
            continue
        found += [(container, key) for key, _ in entries]
        containers += [value for _, value in entries]
    return found


def mutate_bytes(data: bytes, chance: Chance) -> bytes:
    """Change, remove, repeat or insert a few bytes."""
    changed = bytearray(data or b"\0")
    at = chance.randrange(len(changed))
    length = min(chance.choice((1, 1, 2, 4, 16)), len(changed) - at)
    match chance.randrange(5):
        case 0:
            changed[at] ^= 1 << chance.randrange(8)
        case 1:
            changed[at : at + length] = chance.randbytes(length)
        case 2:
            del changed[at : at + length]
        case 3:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 2, 50))
        case 4:
            changed[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
    return bytes(changed)


def mutate_parts(
    data: bytes, separator: bytes, chance: Chance, mutate_part: Callable[[bytes, Chance], bytes]
) -> bytes:
    """Change, drop, repeat or exchange the parts of a sequence."""
    parts = data.split(separator)
    at = chance.randrange(len(parts))
    match chance.randrange(8):
        case 0:
            del parts[at]
        case 1:
            parts.insert(chance.randrange(len(parts) + 1), parts[at])
        case 2:
            other = chance.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        case _:
            parts[at] = mutate_part(parts[at], chance)
    return separator.join(parts)
