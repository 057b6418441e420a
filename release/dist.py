"""Build what a release consists of: ``make dist``.

Wheels and source distributions of ``inspectd`` and ``inspectd-verdicts``, a bundle for machines without
internet, and a ``.deb`` for Debian 12 and Ubuntu 24.04. Wheels of others are fetched from PyPI in the
versions that are installed here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from release.debian_package import build_deb
from release.dependencies import PYTHONS, NotFetched, download
from release.distributions import REPOSITORY, build_distributions, copy_sources, project


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m release.dist", description=__doc__.split(":")[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", metavar="DIR", help="default: dist")
    parser.add_argument(
        "--pythons",
        default=",".join(PYTHONS),
        metavar="VERSIONS",
        help="to carry wheels for; default %(default)s",
    )
    options = parser.parse_args()
    dist(options.out, tuple(options.pythons.split(",")))


def dist(out: Path, pythons: tuple[str, ...]) -> None:
    """Build all into a folder; what an earlier release left there goes."""
    if shutil.which("dpkg-deb") is None:
        raise SystemExit("dist: dpkg-deb is not installed (Debian: dpkg)")
    version, epoch = project()["version"], _epoch()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as name:
        work = Path(name)
        _say(f"wheels and source distributions of {version}")
        built, wheels = work / "built", work / "wheels"
        copy_sources(work / "sources")
        build_distributions(work / "sources", built)
        wheels.mkdir()
        for wheel in built.glob("*.whl"):
            shutil.copy2(wheel, wheels)
        for python in pythons:
            _say(f"wheels of what it needs, for Python {python}")
            try:
                download(wheels, python)
            except NotFetched as error:
                raise SystemExit(f"dist: wheels not fetched: {error}") from error
        _say("bundle")
        build_bundle(built, wheels, version, epoch)
        _say("Debian package")
        build_deb(built, wheels=wheels, pythons=pythons, version=version, epoch=epoch, work=work)
        for old in (*out.glob("inspectd-*"), *out.glob("inspectd_*")):
            old.unlink()
        for path in sorted(built.iterdir()):
            done = path.rename(out / path.name)
            _say(f"{done}: {done.stat().st_size / 1e6:.1f} MB")


def build_bundle(out: Path, wheels: Path, version: str, epoch: int) -> None:
    """Pack the wheels with their installer; they are compressed already."""
    folder = f"inspectd-{version}-linux-x86_64"

    def as_released(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = epoch
        member.mode = 0o755 if member.name.endswith(".sh") or member.isdir() else 0o644
        return member

    with tarfile.open(out / f"{folder}.tar", "w") as tar:
        tar.add(REPOSITORY / "release/install.sh", f"{folder}/install.sh", filter=as_released)
        tar.add(REPOSITORY / "LICENSE", f"{folder}/LICENSE", filter=as_released)
        for wheel in sorted(wheels.iterdir()):
            tar.add(wheel, f"{folder}/wheels/{wheel.name}", filter=as_released)


def _epoch() -> int:
    """Give the time of the release: its last commit's, or now where there is no git."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    command = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return int(time.time())


def _say(what: str) -> None:
    print(f"dist: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
