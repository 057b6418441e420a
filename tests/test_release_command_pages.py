"""Man pages and completion, as the package puts them where shells and ``man`` look."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from line_rig import COMMANDS

from release.command_pages import commands, write_pages


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    write_pages(folder, "0.1.0", "2026-11-30")
    return folder


def page(root: Path, command: str) -> str:
    packed = root / f"usr/share/man/man1/{command}.1.gz"
    return gzip.decompress(packed.read_bytes()).decode().replace("\\-", "-")


def test_each_command_of_a_lines_pc_has_its_pages(root: Path) -> None:
    assert {"inspectd", "inspectctl", "build-engine", "calibrate"} <= set(commands())
    assert "efficientad" not in commands(), "torch is not in a release's package"
    for command in commands():
        assert page(root, command).startswith(f'.TH {command.upper()} "1" "2026-11-30" "inspectd 0.1.0"')


def test_a_man_page_tells_every_option_that_help_tells(root: Path) -> None:
    helps = {
        "inspectd": ["inspectd", "--help"],
        "build-engine": ["build-engine", "--help"],
        "inspectctl": ["inspectctl", "replay", "--help"],
    }
    for command, call in helps.items():
        name, *arguments = call
        told = subprocess.run([COMMANDS / name, *arguments], capture_output=True, text=True, check=True)
        options = set(re.findall(r"(?m)^  (?:-\w, )?(--[\w-]+)", told.stdout)) - {"--help"}
        assert options
        assert {option for option in options if option not in page(root, command)} == set()


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed (Debian: man-db)")
def test_man_finds_no_fault_in_a_page(root: Path) -> None:
    for path in (root / "usr/share/man/man1").iterdir():
        command = ["man", "--warnings", "--local-file", path]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"MANROFFSEQ": ""})
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("typed", "offered"), [(["rep"], {"replay"}), (["replay", "--dec"], {"--decisions"})]
)
def test_bash_completes_commands_and_options(root: Path, typed: list[str], offered: set[str]) -> None:
    file = root / "usr/share/bash-completion/completions/inspectctl"
    words = " ".join(f"'{word}'" for word in ("inspectctl", *typed))
    program = f"""
source {file}
COMP_WORDS=({words}) COMP_CWORD={len(typed)}
$(complete -p inspectctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("shell", "pattern"),
    [
        ("zsh", "usr/share/zsh/vendor-completions/_*"),
        ("fish", "usr/share/fish/vendor_completions.d/*.fish"),
    ],
)
def test_the_other_shells_can_read_theirs(root: Path, shell: str, pattern: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    found = list(root.glob(pattern))
    assert len(found) == len(commands())
    for path in found:
        done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=True)
        assert done.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_commands(root: Path, tmp_path: Path) -> None:
    file = root / "usr/share/fish/vendor_completions.d/inspectctl.fish"
    program = f"source {file}; complete --do-complete 'inspectctl rep'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"replay"}
