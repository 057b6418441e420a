"""The ``.deb``: one for Debian 12 and Ubuntu 24.04, with wheels of which it makes its environment.

An environment made here would hold the binaries of one Python alone, so two systems would need two
packages, and its files would be swapped one by one under a line that runs. Made by ``postinst``, it stands
whole beside the running one before a link is set over, and the lines are down for a restart only.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

from release.command_pages import commands, write_pages
from release.distributions import REPOSITORY

_CONTROL = """\
Package: inspectd
Version: {version}
Section: science
Priority: optional
Architecture: amd64
Maintainer: The authors of inspectd <inspectd@localhost>
Installed-Size: {size_kb}
Depends: python3 (>= 3.{first}~), python3 (<< 3.{after_last}~), systemd (>= 252),
 init-system-helpers (>= 1.65~)
Description: visual inspection of every part on a production line
 A daemon that looks at every part on a production line and throws out
 the bad ones, in milliseconds, having seen only good parts. It grabs
 frames from cameras and publishes a verdict on every one.
 .
 With the commands build-engine and calibrate for a line's own PC. Models are
 trained elsewhere: torch is not in this package.
"""


def build_deb(
    out: Path, *, wheels: Path, pythons: tuple[str, ...], version: str, epoch: int, work: Path
) -> None:
    """Build the package with ``dpkg-deb``.

    Args:
        out: folder of the package.
        wheels: folder with all wheels for these Pythons.
        pythons: versions such as ``3.11``, with none left out between them.
        version: of the release.
        epoch: of the release, in seconds since 1970.
        work: empty folder on the same file system as the wheels.
    """
    root = work / "root"
    share, documents = root / "usr/share/inspectd", root / "usr/share/doc/inspectd"
    (share / "wheels").mkdir(parents=True)
    documents.mkdir(parents=True)
    for wheel in wheels.iterdir():
        os.link(wheel, share / "wheels" / wheel.name)
    shutil.copy2(REPOSITORY / "release/install.sh", share)
    _write_units(root)
    for name in commands():
        link = root / "usr/bin" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"/opt/inspectd/bin/{name}")
    write_pages(root, version, f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d}")
    shutil.copy2(REPOSITORY / "release/deb/copyright", documents)
    shutil.copytree(REPOSITORY / "configs", documents / "examples")
    changes = (
        f"inspectd ({_debian(version)}) stable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n"
    )
    changes += f" -- The authors of inspectd <inspectd@localhost>  {formatdate(epoch)}\n"
    (documents / "changelog.gz").write_bytes(gzip.compress(changes.encode(), mtime=0))

    minors = sorted(int(python.split(".")[1]) for python in pythons)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        _CONTROL.format(
            version=_debian(version),
            size_kb=sum(path.stat().st_size for path in files) // 1024,
            first=minors[0],
            after_last=minors[-1] + 1,
        )
    )
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    (control / "md5sums").write_text("".join(sums))
    for script in ("preinst", "postinst", "prerm", "postrm"):
        shutil.copy2(REPOSITORY / "release/deb" / script, control)
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or _is_script(path) else 0o644)
    package = out / f"inspectd_{_debian(version)}_amd64.deb"
    # Wheels are compressed already.
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root), str(package)]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    )


def _write_units(root: Path) -> None:
    """Write units, the user and the folders as ``inspectctl install-service`` does."""
    call = "import sys; from daemon.inspectctl.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["--prefix", f"{root}/usr/lib", "--inspectd", "/opt/inspectd/bin/inspectd"]
    command = [sys.executable, "-c", call, "install-service", *options]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def _debian(version: str) -> str:
    """Write a version as Debian orders it: candidates come before their release."""
    return re.sub(r"rc", "~rc", version)


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"
