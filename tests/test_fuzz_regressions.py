"""What the fuzzer found, each kept from coming back."""

import re
import time
from pathlib import Path

import pytest

from engine_runtime.errors import InputError
from engine_runtime.yaml_file import read_yaml


def refused(path: Path, text: str) -> str:
    from daemon.config import load_config

    path.write_text(text)
    began_s = time.process_time()
    with pytest.raises(InputError) as raised:
        load_config(path)
    assert time.process_time() - began_s < 5
    line = str(raised.value)
    assert line.startswith(str(path))
    assert line.isprintable()
    return line


SOUND = "line: a\nengine: e\ncalibration: c\npublish: ipc://x\ncameras: {top: {source: x}}\n"
MERGED_OVER_AND_OVER = "m0: &m0 {x: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
ALIASES_IN_KEYS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("line: !!int ''", "not YAML: string index out of range"),
        ("line: !!float ''", "not YAML: string index out of range"),
        (SOUND + "lanes: 0x" + "f" * 5000, "not YAML: found a number of more than 64 bits"),
        (SOUND + '"li\\nne": 1', r"li\\nne: unknown key"),
        (SOUND + '"\\x1b[2J": 1', r"\\x1b\[2J: unknown key"),
        (SOUND.replace("source: x", 'source: x, "\\0": 1'), r"cameras\.top\.\\x00: unknown key"),
        (SOUND + "? " + "k" * 50_000 + "\n: 1", "kkk…$"),
        (MERGED_OVER_AND_OVER, "aliases of aliases without end"),
        (ALIASES_IN_KEYS + "? *a19\n: 1", "aliases of aliases without end"),
        ("&a {? *a : 1}", "aliases of aliases without end"),
        ("line: " + ":".join(["59"] * 30_000), "found a number of more than 64 bits"),
        ("x: 1\n" * 20_001, "larger than 100000 bytes"),
    ],
)
def test_configs_that_broke_the_reader_are_refused_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert re.search(expected, refused(tmp_path / "line3.yaml", text))


def test_ordinary_aliases_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "line3.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(path, "keys").content == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}
