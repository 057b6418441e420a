"""The bundle's ``install.sh``, with a stand-in for inspectd: what it refuses, and how versions follow."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from line_rig import REPOSITORY

pytestmark = pytest.mark.skipif(
    os.uname().sysname != "Linux" or os.uname().machine != "x86_64",
    reason="the bundle is for Linux on x86-64",
)

MINOR = sys.version_info.minor


def write_wheel(
    folder: Path, name: str, version: str, files: dict[str, str], tag: str = "py3-none-any"
) -> None:
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def write_bundle(folder: Path, version: str, *, broken: bool = False) -> Path:
    """Write a bundle whose inspectd only tells its version; another wheel says for which Python it is."""
    wheels = folder / version / "wheels"
    wheels.mkdir(parents=True)
    program = (
        "def main():\n    " + ("raise SystemExit(1)" if broken else f"print('inspectd {version}')") + "\n"
    )
    entry = {
        f"inspectd-{version}.dist-info/entry_points.txt": "[console_scripts]\ninspectd = stand_in:main\n"
    }
    write_wheel(wheels, "inspectd", version, {"stand_in.py": program} | entry)
    write_wheel(wheels, "compiled", "1.0", {"compiled.py": ""}, f"cp3{MINOR}-cp3{MINOR}-linux_x86_64")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, "pip"]
    if subprocess.run(pip, capture_output=True, check=False).returncode:
        pytest.skip("the wheel of pip cannot be fetched here")
    shutil.copy2(REPOSITORY / "release/install.sh", wheels.parent)
    return wheels.parent / "install.sh"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        write_bundle(folder, version, broken=version == "0.3.0")
    return folder


def install(script: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, "--python", sys.executable, *options], capture_output=True, text=True, check=False
    )


def test_versions_follow_each_other_and_the_last_is_kept(bundles: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "inspectd"

    def installed() -> str:
        return subprocess.run([prefix / "bin/inspectd"], capture_output=True, text=True, check=True).stdout

    done = install(bundles / "0.1.0/install.sh", "--prefix", prefix)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"the commands are in {prefix}/bin"
    assert installed() == "inspectd 0.1.0\n"
    where = [prefix / "bin/python", "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(where, capture_output=True, text=True, check=True).stdout == f"{prefix}\n"
    first = (prefix / "current").resolve()

    # A package that somebody added by hand is not in the next version, which says so.
    (first / f"lib/python3.{MINOR}/site-packages/by_hand-1.0.dist-info").mkdir()
    done = install(bundles / "0.2.0/install.sh", "--prefix", prefix)
    assert installed() == "inspectd 0.2.0\n"
    assert done.stderr == (
        "install.sh: warning: the version before had packages that this one has not: by_hand\n"
    )
    back = done.stdout.splitlines()[-1].removeprefix("the version before is kept; to go back to it: ")
    second = (prefix / "current").resolve()
    assert first.is_dir()

    # One that does not run changes nothing.
    failed = install(bundles / "0.3.0/install.sh", "--prefix", prefix)
    assert failed.returncode != 0
    assert installed() == "inspectd 0.2.0\n"
    assert {path for path in prefix.iterdir() if not path.is_symlink()} == {first, second}

    subprocess.run(back, shell=True, check=True)
    assert installed() == "inspectd 0.1.0\n"
    install(bundles / "0.2.0/install.sh", "--prefix", prefix)
    folders = {path for path in prefix.iterdir() if not path.is_symlink()}
    assert folders == {first, (prefix / "current").resolve()}, "the version before, and no older one"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--prefix", "inspectd"), "--prefix: found 'inspectd', expected an absolute path"),
        (("--prefix",), "--prefix: found nothing after it, expected a value"),
        (
            ("--with", "torch"),
            "--with: found 'torch', expected some of build, signed, dashboard and plant with commas between",
        ),
        (("--python", "no-python"), f"no-python: found none, expected Python 3.{MINOR}"),
        (("--offline",), "--offline: is not an option; --help shows them"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(
    bundles: Path, options: tuple[str, ...], complaint: str
) -> None:
    done = install(bundles / "0.1.0/install.sh", *options)
    assert done.returncode == 2
    assert done.stderr == f"install.sh: {complaint}\n"


def test_an_environment_made_by_hand_is_left_alone(bundles: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = install(bundles / "0.1.0/install.sh", "--prefix", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"install.sh: {tmp_path}: is an environment that was made by hand; expected none, or one of this "
        f"installer; move it away: mv {tmp_path} {tmp_path}.old\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
