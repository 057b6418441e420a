"""docs/plc.md: its function blocks work as they stand there, and its table is that of the registers."""

import random
import re
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery_line import DeliveryLine
from line_rig import REPOSITORY
from plant_rig import free_port, plant, until, write_plant

pytest.importorskip("pymodbus", reason="needs pymodbus: pip install 'inspectd[plant]'")
from pymodbus.client import ModbusTcpClient

from plant.config import load_plant
from plant.outputs.registers import MAP, WORDS
from plant.run import check

PAGE = (REPOSITORY / "docs/plc.md").read_text()


def test_the_table_of_registers_is_the_map() -> None:
    rows = re.findall(r"^\| (\d+)(?: to (\d+))? \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    documented = {
        name: (int(first), int(last or first) - int(first) + 1, meaning)
        for first, last, name, meaning in rows
    }
    assert documented.pop("acknowledge")[0] == 100
    assert documented == {name: tuple(register) for name, register in MAP.items()}


@pytest.mark.parametrize("page", ["plc", "gate", "grafana"])
def test_the_examples_of_the_pages_are_in_order(tmp_path: Path, page: str) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\ncameras: {top: {source: x}}\n"
    )
    text = (REPOSITORY / f"docs/{page}.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert examples
    for example in examples:
        content = yaml.safe_load(example)
        if "scrape_configs" in content:
            assert content == yaml.safe_load((REPOSITORY / "configs/prometheus/prometheus.yaml").read_text())
        else:
            check(load_plant(write_plant(tmp_path, **content)))


# A translator for the few words of structured text that the page uses.


class Timer:
    """TON of IEC 61131-3, and TONR of Logix."""

    PRE = 0
    TimerEnable: Any = False

    def __init__(self) -> None:
        self._since_s: float | None = None
        self.Q = self.DN = False

    def __call__(self, IN: bool, PT: float) -> None:
        if not IN:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = time.monotonic()
        self.Q = self.DN = self._since_s is not None and time.monotonic() - self._since_s >= PT


def python_of(text: str) -> str:
    """Translate statements; assignments of one cycle become Python's."""
    text = re.sub(r"\(\*.*?\*\)", "", text, flags=re.DOTALL)
    text = re.sub(r"(?<!\w)#", "", text)  # Siemens marks what is local
    lines = []
    depth = 0
    for statement in (re.sub(r"//.*", "", line).strip().rstrip(";") for line in text.splitlines()):
        if not statement:
            continue
        word = statement.split()[0]
        if word in ("ELSIF", "END_IF"):
            depth -= 1
        if word in ("IF", "ELSIF"):
            condition = expression(statement.removeprefix(word).removesuffix("THEN"))
            lines.append("    " * depth + f"{'if' if word == 'IF' else 'elif'} {condition}:")
            depth += 1
        elif word != "END_IF":
            called = re.fullmatch(r"(\w+)\(((?:\w+ := .+)(?:, \w+ := .+)*)\)", statement)
            if called is not None:
                lines.append("    " * depth + f"{called[1]}({arguments(called[2])})")
            elif ":=" in statement:
                target, _, value = statement.partition(":=")
                lines.append("    " * depth + f"{target.strip()} = {expression(value)}")
            else:
                lines.append("    " * depth + expression(statement))
    assert depth == 0, text
    return "\n".join(lines)


def arguments(text: str) -> str:
    found = re.split(r", (?=\w+ :=)", text)
    return ", ".join(
        f"{name.strip()}={expression(value)}" for name, _, value in (one.partition(":=") for one in found)
    )


def expression(text: str) -> str:
    text = re.sub(r"T#(\d+)S", r"\1", text)
    text = re.sub(r"16#([0-9A-F]+)", r"0x\1", text)
    text = re.sub(r"SHL\(IN := (.+?\)), N := (\d+)\)", r"SHL(\1, \2)", text)
    text = text.replace("<>", "!=")
    text = re.sub(r"(?<![<>!:=])=(?!=)", "==", text)
    # In structured text AND and OR are of bits and of truth values; comparisons bind closer.
    text = re.sub(r"(\w+(?:\[\d+\])?(?:\.\w+)?) (==|!=) (\w+(?:\[\d+\])?)", r"(\1 \2 \3)", text)
    text = re.sub(r"\bNOT (\w+(?:\.\w+)?)", r"(not \1)", text)
    return re.sub(r"\bOR\b", "|", re.sub(r"\bAND\b", "&", text)).replace("FALSE", "False").strip()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def statements(block: str) -> str:
    """Leave out what declares."""
    block = re.sub(r"^FUNCTION_BLOCK.*\n", "", block)
    block = re.sub(r"^VAR.*?END_VAR\n", "", block, flags=re.DOTALL | re.MULTILINE)
    return textwrap.dedent(block.replace("BEGIN\n", "").replace("END_FUNCTION_BLOCK\n", ""))


BLOCKS = {"Siemens": blocks("scl")[0], "Beckhoff": blocks("st")[0], "Rockwell": blocks("st")[1]}


class Program:
    """A PLC that polls: each cycle reads the registers, runs the block, and writes the acknowledgement."""

    def __init__(self, block: str, port: int, *, signed: bool) -> None:
        self.code = compile(python_of(statements(block)), "docs/plc.md", "exec")
        self.signed = signed
        self.read: list[tuple[int, int]] = []
        self.memory: dict[str, Any] = {
            "Reg": [0] * 110, "Seq": 0, "Boot": 0, "Beat": 0, "Watchdog": Timer(),
            "SHL": lambda word, by: word << by, "WORD_TO_DWORD": int, "WORD_TO_INT": int,
            "TONR": lambda timer: timer(timer.TimerEnable, timer.PRE / 1000),
        }  # fmt: skip
        self.client = ModbusTcpClient("127.0.0.1", port=port)

    def run(self, words: list[int]) -> int:
        """Run the block on these registers; give the acknowledgement."""
        self.memory["Reg"][:WORDS] = [word - 65536 * (self.signed and word > 32767) for word in words]
        exec(self.code, self.memory)
        if self.memory["IsNew"]:
            self.read.append((self.memory["Seq"], self.memory["Decision"]))
        return int(self.memory["Reg"][100])

    def cycle(self) -> None:
        words = self.client.read_holding_registers(0, count=WORDS).registers
        self.client.write_register(100, self.run(words))

    def has_read(self, seq: int) -> bool:
        self.cycle()
        return bool(self.read) and self.read[-1][0] == seq

    def trusts(self) -> bool:
        self.cycle()
        return bool(self.memory["LineOk"])


def test_all_function_blocks_do_the_same() -> None:
    programs = [Program(block, 1, signed=name == "Rockwell") for name, block in BLOCKS.items()]
    chance = random.Random(1)
    words = [0] * WORDS
    for _ in range(2000):
        changed = chance.choice((0, 1, 8, 9, 11, 13, 14, 15))
        small = changed in (9, 14)  # a decision, and the high word of a number that never grows so large
        words[changed] = chance.choice((0, 1, 2, 3) if small else (0, 1, 2, 3, 0x7FFF, 0x8000, 0xFFFF))
        assert len({program.run(words) for program in programs}) == 1
    assert programs[0].read and all(program.read == programs[0].read for program in programs)


@pytest.mark.slow
def test_a_function_block_reads_each_verdict_once(tmp_path: Path) -> None:
    line, port = DeliveryLine(tmp_path), free_port()
    config = write_plant(tmp_path, line, modbus_server={"listen": f"tcp://127.0.0.1:{port}"}, silence="1 s")
    plc = Program(BLOCKS["Rockwell"], port, signed=True)  # its INT has a sign
    try:
        with plant(config) as running:
            running.until_connected("modbus_server")
            assert plc.client.connect()
            line.judge(1, 30)
            line.judge(31, 31, decision="reject", score=0.9)
            until(lambda: plc.has_read(31))
            assert plc.trusts()
            line.judge(32, 40)
            until(lambda: plc.client.read_holding_registers(8, count=1).registers == [1])
            plc.cycle()  # reads one and acknowledges, and both ends are gone
            plc.client.close()
        with plant(config) as running:
            running.until_connected("modbus_server")
            assert plc.client.connect()
            until(lambda: plc.has_read(40))
            assert plc.read == [(seq, 2 if seq == 31 else 1) for seq in range(1, 41)]
            line.kill()
            until(lambda: not plc.trusts())
            plc.client.close()
    finally:
        if line.process.poll() is None:
            line.kill()
