"""Seeds and changes of the YAML that people edit."""

from collections.abc import Sequence

from fuzzing.mutation import mutate_bytes
from fuzzing.target import Chance

ODD_YAML: Sequence[str] = (
    "null", "~", "true", "yes", "0", "-1", "1.5", ".nan", ".inf", "-.inf", "1e400", "0x" + "f" * 5000, "0b1",
    "0o7", "1_000", "9" * 4000, "9" * 5000, ":".join(["59"] * 900), "1:30", "2026-01-31", "2026-99-99",
    "2026-01-31 99:99:99", "''", '""', "'a\\nb'", '"a\\nb"', '"\\0"', '"\\ud800"', "é", "[]", "{}", "[[]]",
    "{a: {b: {c: 1}}}", "&a [*a]", "&a {*a : 1}", "*a", "&a x", "{<<: {a: 1}}", "{<<: [*a, *a]}", "<<",
    "{? [a] : 1}", "{? {a: b} : 1}", "!!int ''", "!!int x", "!!float ''", "!!bool x", "!!null x",
    "!!timestamp x", "!!binary '='", "!!binary é", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]",
    "!!str {a: 1}", "!!map x", "!!seq x", "!!python/name:os.system",
    "!!python/object/apply:os.system [true]", "!<tag:yaml.org,2002:int> ''", "!x y", "|\n    text",
    ">-\n    text", "tcp://127.0.0.1:5560", "tcp://0.0.0.0:5560", "ipc://x", "ipc://", "tcp://[::1]:1",
    "credential:line3", "x" * 5000,
)  # fmt: skip

WORDS: Sequence[str] = (
    ": ", "- ", "\n  ", "&a ", "*a", "<<: *a", "? ", "!!int ", "!!float ", "---\n", "...\n", "%YAML 1.1\n",
    "%TAG ! x\n", "|", ">", "[", "]", "{", "}", '"', "'", "#", "@", "`", "\t", "\x85", "\ufeff",
)  # fmt: skip


def mutate_yaml(data: bytes, chance: Chance) -> bytes:
    """Change a line, or a value, of a YAML text."""
    lines = data.decode(errors="replace").split("\n")
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(lines))
        key, colon, _ = lines[at].partition(": ")
        match chance.randrange(10):
            case 0:
                lines.insert(chance.randrange(len(lines) + 1), lines[at])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at] = " " * chance.choice((1, 2, 4)) + lines[at]
            case 3:
                lines[at] = lines[at].lstrip()
            case 4:
                lines[at] = f"{key}: {_nested(chance)}"
            case 5:
                lines[at] = key.replace(key.strip(), chance.choice(ODD_YAML), 1) + (colon or ": ") + "1"
            case _:
                lines[at] = f"{key}: {chance.choice(ODD_YAML)}"
    text = "\n".join(lines).encode(errors="replace")
    return mutate_bytes(text, chance) if chance.random() < 0.1 else text


def _nested(chance: Chance) -> str:
    """Write what grows when it is read: deep nesting, aliases of aliases, merges of merges."""
    match chance.randrange(3):
        case 0:
            depth = chance.choice((2, 3, 5, 5, 20, 50, 50, 600))
            return "[" * depth + "]" * depth
        case 1:
            levels = ["&l0 [x, x]"] + [f"&l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
            return f"[{', '.join(levels)}]"
    levels = ["&m0 {x: 1}"] + [f"&m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    return f"[{', '.join(levels)}]"
