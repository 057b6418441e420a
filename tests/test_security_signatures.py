"""A line that runs only engines and calibrations that somebody it trusts has signed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from line_rig import COMMANDS, part_image, running, write_config
from patience import PATIENCE_S

from calibration.calibration_file import read_calibration
from calibration.threshold_change import apply, put_back
from daemon.cli import main as inspectd
from dashboard.threshold_change import LineRefused, in_use, why_not
from engine_runtime.engine_file import read_engine
from engine_runtime.signatures import SigningKey, TrustedKeys
from foundation.errors import EngineRefused, InputError
from lines.line_config import read_line


def make_key(public: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return key


def sign(engine: Path, key: Ed25519PrivateKey) -> Path:
    signature = engine.with_name(engine.name + ".sig")
    signature.write_bytes(key.sign(engine.read_bytes()))
    return signature


@pytest.fixture
def signed(line_folder: Path) -> tuple[Path, Ed25519PrivateKey]:
    """The engine and calibration of a line folder, signed; the public key lies beside them."""
    engine = line_folder / "brightness.engine"
    key = make_key(line_folder / "release.pem")
    sign(engine, key)
    sign(line_folder / "brightness.calibration.yaml", key)
    return engine, key


def refused(config: Path) -> str:
    done = subprocess.run(
        [COMMANDS / "inspectd", "--config", config],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    return line


def test_a_signed_engine_runs(signed: tuple[Path, Ed25519PrivateKey]) -> None:
    folder = signed[0].parent
    make_key(folder / "another.pem")
    part_image(folder / "parts/0.png", bright=True)
    config = write_config(
        folder, {"top": {"source": "parts"}}, trusted_keys=["another.pem", "release.pem"], threads=1
    )
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    assert [verdict.decision for verdict in line.verdicts] == ["reject"]


def cut(engine: Path, signature: Path) -> None:
    signature.write_bytes(signature.read_bytes()[:-1])


def altered(engine: Path, signature: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1  # in the last field of the archive, which no checksum covers
    engine.write_bytes(content)


def by_another(engine: Path, signature: Path) -> None:
    sign(engine, Ed25519PrivateKey.generate())


def missing(engine: Path, signature: Path) -> None:
    signature.unlink()


@pytest.mark.parametrize("name", ["brightness.engine", "brightness.calibration.yaml"])
@pytest.mark.parametrize("damage", [cut, altered, by_another, missing])
def test_any_other_is_refused_in_one_line(
    signed: tuple[Path, Ed25519PrivateKey],
    damage: Callable[[Path, Path], None],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = signed[0].with_name(name)
    damage(file, file.with_name(f"{name}.sig"))
    config = write_config(file.parent, {"top": {"source": "parts"}}, trusted_keys=["release.pem"])
    assert inspectd(["--config", str(config), "--check"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{file}: of unknown origin" in line
    assert f"{name}.sig" in line


def test_a_reload_to_an_unsigned_engine_is_refused_and_the_line_runs_on(
    signed: tuple[Path, Ed25519PrivateKey],
) -> None:
    engine, key = signed
    config = write_config(
        engine.parent,
        {"top": {"source": "simulated://?width=64&height=64&cached=4", "fps": 100}},
        trusted_keys=["release.pem"],
        journal={"file": "line3.journal"},
        control=f"ipc://{engine.parent}/control",
    )
    other = engine.with_name("other.engine")
    shutil.copy(engine, other)

    def reload() -> subprocess.CompletedProcess[str]:
        command = [COMMANDS / "inspectctl", "reload", "--config", config]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 10)
        config.write_text(config.read_text().replace("brightness.engine", "other.engine"))
        done = reload()
        assert done.returncode == 2
        assert f"{other}: of unknown origin" in done.stderr
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 10)
        sign(other, key)
        assert reload().returncode == 0
        line.stop()
    assert {verdict.decision for verdict in line.verdicts} <= {"pass", "reject"}


def private(key: Ed25519PrivateKey, file: Path, password: bytes | None = None) -> Path:
    hidden = NoEncryption() if password is None else BestAvailableEncryption(password)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    return file


@pytest.mark.slow
def test_a_changed_threshold_is_signed_or_refused(signed: tuple[Path, Ed25519PrivateKey]) -> None:
    engine, key = signed
    calibration = engine.with_name("brightness.calibration.yaml")
    config = write_config(
        engine.parent,
        {"top": {"source": "simulated://?width=64&height=64&cached=4", "fps": 100}},
        trusted_keys=["release.pem"],
        journal={"file": "line3.journal"},
        control=f"ipc://{engine.parent}/control",
    )
    reason = why_not(read_line(config), None)
    assert reason is not None
    assert reason[0] == "not_signed"
    assert "signing_key" in reason[1]
    before = calibration.read_text()
    own = read_line(config, signing_key=private(key, engine.parent / "page.key"))
    stranger = read_line(config, signing_key=private(Ed25519PrivateKey.generate(), engine.parent / "no.key"))
    assert why_not(own, None) is None
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 10)
        change = {"by": "anna", "reason": "a test", "interval": (0.0, 0.1)}
        with pytest.raises(LineRefused, match="of unknown origin"):
            apply(in_use(stranger, None), 0.25, **change)  # type: ignore[arg-type]
        assert calibration.read_text() == before
        apply(in_use(own, None), 0.25, **change)  # type: ignore[arg-type]
        line.until(lambda line: line.verdicts[-1].threshold == 0.25)
        assert read_calibration(calibration).threshold == 0.25
        put_back(in_use(own, None), before)
        line.until(lambda line: line.verdicts[-1].threshold == 0.5)
        line.stop()
    assert calibration.read_text() == before
    assert inspectd(["--config", str(config), "--check"]) == 0


def test_what_is_no_signing_key_is_refused_in_one_line(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    with pytest.raises(InputError, match="cannot be read"):
        SigningKey(tmp_path / "none.key")
    with pytest.raises(InputError, match="has a password"):
        SigningKey(private(key, tmp_path / "locked.key", b"secret"))
    make_key(tmp_path / "release.pem")
    with pytest.raises(InputError, match="expected an Ed25519 private key"):
        SigningKey(tmp_path / "release.pem")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"ssh-ed25519 AAAA", "expected an Ed25519 public key in PEM"),
        (
            b"-----BEGIN PUBLIC KEY-----\nMFkwEwY=\n-----END PUBLIC KEY-----\n",
            "expected an Ed25519 public key",
        ),
        (
            generate_private_key(SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "found a key of another kind, expected an Ed25519 public key",
        ),
    ],
    ids=["missing", "ssh", "cut", "another kind"],
)
def test_wrong_keys(line_folder: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (line_folder / "release.pem").write_bytes(content)
    config = write_config(line_folder, {"top": {"source": "parts"}}, trusted_keys=["release.pem"])
    line = refused(config)
    assert f"{line_folder / 'release.pem'}: trusted_keys: " in line
    assert said in line


def test_no_keys_are_no_list_of_keys(line_folder: Path) -> None:
    # Whoever leaves the list empty may mean "nobody", which would be a line that runs everything.
    config = write_config(line_folder, {"top": {"source": "parts"}}, trusted_keys=[])
    assert "trusted_keys" in refused(config)


def test_what_was_checked_is_what_is_read(signed: tuple[Path, Ed25519PrivateKey]) -> None:
    engine, _ = signed
    trusted = TrustedKeys([engine.with_name("release.pem")])
    assert read_engine(engine, trusted) == read_engine(engine)
    with pytest.raises(EngineRefused, match="of unknown origin"):
        trusted.check(engine, engine.read_bytes() + b"\0")
    with pytest.raises(InputError, match="cannot be read"):
        TrustedKeys([engine.with_name("no.pem")])


def test_another_key_in_the_same_file_is_another_key(tmp_path: Path) -> None:
    make_key(tmp_path / "release.pem")
    before = TrustedKeys([tmp_path / "release.pem"])
    assert before.fingerprint == TrustedKeys([tmp_path / "release.pem"]).fingerprint
    make_key(tmp_path / "release.pem")
    assert before.fingerprint != TrustedKeys([tmp_path / "release.pem"]).fingerprint


def test_openssl_signs_as_the_docs_say(line_folder: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=line_folder, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "release.key")
    openssl("pkey", "-in", "release.key", "-pubout", "-out", "release.pem")
    name = "brightness.engine"
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", "release.key", "-in", name, "-out", f"{name}.sig")
    read_engine(line_folder / name, TrustedKeys([line_folder / "release.pem"]))
