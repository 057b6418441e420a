"""OPC UA: asyncua's and node-opcua's clients in processes of their own, certificates made as the docs say."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery_line import DeliveryLine
from line_rig import REPOSITORY
from opcua_client import OpcuaClient, Refused
from plant_rig import Plant, complaint, free_port, until, write_plant

from foundation.errors import InputError
from plant.config import load_plant
from plant.outputs import LineNow, PeerFailed
from plant.outputs.open import open_outputs

pytest.importorskip("asyncua", reason="needs asyncua: pip install 'inspectd[opcua]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]
NODE_MODULES = os.environ.get("INSPECTD_NODE_MODULES", "")
SCRIPT = Path(__file__).with_name("opcua_client.js")
PASSWORD = "drehmoment 7"
RESULTS, RECIPES = "ResultManagement", "RecipeManagement"
CONFIGURATIONS = "ConfigurationManagement"
STATE = "VisionStateMachine.CurrentState"
LAST = "ResultManagement.Results.LastResult"


def documented_commands() -> str:
    """Give the shell commands of the docs page, in order."""
    page = (REPOSITORY / "docs/opcua.md").read_text()
    blocks = re.findall(r"^    ```sh\n(.*?)^    ```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    return "\n".join(blocks)


def certify(
    folder: Path, name: str, *, bits: int = 2048, days: tuple[int, int] = (-1, 30), uri: str | None = "urn:x"
) -> None:
    """Make a certificate that the docs do not; it is valid between two days, counted from today."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, bits)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin, end = (datetime.now(UTC) + timedelta(days=day) for day in days)
    builder = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), begin, end)
    named = x509.DNSName(name) if uri is None else x509.UniformResourceIdentifier(uri)
    builder = builder.add_extension(x509.SubjectAlternativeName([named]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = folder / f"{name}.key.pem"
    secret.touch(0o600)
    secret.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["bash", "-euc", documented_commands()], cwd=folder, check=True, capture_output=True)
    assert len((folder / "scada.password").read_text()) > 20
    (folder / "scada.password").write_text(PASSWORD)
    certify(folder, "historian")
    certify(folder, "stranger")
    certify(folder, "expired", days=(-9, -2))
    shutil.copy(folder / "expired.pem", folder / "trusted")
    return folder


def an_engine(path: Path, model: str) -> None:
    """Write an engine that nobody will open."""
    from engine_runtime.engine_file import write_engine
    from engine_runtime.manifest import Manifest, Proof

    payload = model.encode()
    proof = Proof(
        parity_frames=1, largest_score_difference=0, batch_rows_equal=True, half_precision_share=0,
        latency_ms={1: 1.0}, graph_score_difference=None,
    )  # fmt: skip
    manifest = Manifest(
        format_version=1, model=model, runtime="onnxruntime", runtime_version="1", precision="fp32",
        input_size=(256, 256), map_size=(56, 56), max_batch=1,
        outputs=("score", "local_map", "global_map"), payload="payload",
        payload_sha256=hashlib.sha256(payload).hexdigest(), source_sha256="0" * 64, device="cpu",
        built_at="2026-01-31T12:00:00Z", tool_version="1", proof=proof,
    )  # fmt: skip
    write_engine(path, manifest, payload)


class Served:
    """A line, its plant's side, and where clients find it."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self.certificates = certificates
        self._next = 1
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.line = DeliveryLine(folder, product="flange", control=f"ipc://{folder}/control")
        self.config = write_plant(folder, self.line, silence="1 s", opcua=self.section())
        for name in ("flange", "lid"):
            an_engine(folder / f"{name}.engine", f"{name}-xs")
            (folder / f"{name}.yaml").write_text(name)
        engines = {"lid": "lid", "flange": "flange", "unknown": "missing", "slow": "missing"}
        lines = folder / "line3.yaml"
        products = {
            name: {"engine": f"{file}.engine", "calibration": f"{file}.yaml"}
            for name, file in engines.items()
        }
        lines.write_text(yaml.safe_dump(yaml.safe_load(lines.read_text()) | {"products": products}))
        self.plant = Plant(self.config)

    def section(self, **changes: Any) -> dict[str, Any]:
        made = self.certificates
        return {
            "listen": self.url,
            "security": ["Basic256Sha256", "Aes256_Sha256_RsaPss"],
            "certificate": str(made / "server.pem"),
            "certificate_key": str(made / "server.key.pem"),
            "trusted": str(made / "trusted"),
            "users": {
                "scada": {"password": str(made / "scada.password"), "control": True},
                "historian": {"certificate": str(made / "historian.pem")},
            },
            "clients": 3,
            "keep": 20,
        } | changes

    def as_scada(self, **changes: Any) -> dict[str, Any]:
        """Tell how the user of the docs connects."""
        made = self.certificates
        return {
            "policy": "Basic256Sha256",
            "certificate": str(made / "client.pem"),
            "key": str(made / "client.key.pem"),
            "user": "scada",
            "password": PASSWORD,
        } | changes

    def judge(self, count: int = 1, **changes: Any) -> int:
        """Have the line judge the next parts; give the first ``seq``."""
        first = self._next
        self._next += count
        self.line.judge(first, first + count - 1, **changes)
        return first

    def close(self) -> None:
        self.plant.close()
        self.line.kill()


@pytest.fixture(scope="module")
def served(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("line"), certificates)
    try:
        served.plant.until_connected("opcua")
        yield served
    finally:
        print(served.plant.log)
        served.close()


@pytest.fixture(scope="module")
def client() -> Iterator[OpcuaClient]:
    client = OpcuaClient()
    yield client
    client.close()


def content(result: dict[str, Any]) -> dict[str, Any]:
    (found,) = result["ResultContent"]
    inner: dict[str, Any] = found.get("Value", found)
    return inner


def prepare(client: OpcuaClient, product: str) -> list[Any]:
    return client.call(
        f"{RECIPES}.PrepareRecipe", ["RecipeIdExternalDataType", product], ["RecipeIdInternalDataType", ""]
    )


def outcome(client: OpcuaClient, product: str) -> int:
    """Prepare a recipe, and give the error when it is over; after half a second an event tells of that."""
    before = len(client.events())
    _, completed, error = prepare(client, product)
    if completed or error:
        return int(error)
    (told, *_) = until(
        lambda: [one for one in client.events()[before:] if "ExternalId" in one or one["Severity"] == 600]
    )
    return 0 if "ExternalId" in told else -2


def test_who_may_log_in(served: Served, client: OpcuaClient) -> None:
    assert sorted(client.tell(do="endpoints", url=served.url)) == [
        "Aes256_Sha256_RsaPss SignAndEncrypt",
        "Basic256Sha256 SignAndEncrypt",
    ]
    made = served.certificates
    user = {"user": "scada", "password": PASSWORD}
    refused = {
        "No matching endpoints": user,
        "BadUserAccessDenied": served.as_scada(password="wrong"),
        "BadUserAccessDenied ": served.as_scada(user="historian", password=""),
        "BadUserAccessDenied  ": served.as_scada(user="nobody"),
        "BadIdentityTokenRejected": {
            key: value for key, value in served.as_scada().items() if key not in user
        },
        "BadCertificateUntrusted": served.as_scada(
            certificate=str(made / "stranger.pem"), key=str(made / "stranger.key.pem")
        ),
        "BadCertificateTimeInvalid": served.as_scada(
            certificate=str(made / "expired.pem"), key=str(made / "expired.key.pem")
        ),
    }
    for name, how in refused.items():
        with pytest.raises(Refused, match=name.strip()):
            client.connect(served.url, **how)
    # Who does not ask which endpoints there are, or shows a certificate that is not his.
    intruder = OpcuaClient()
    with pytest.raises(Refused, match="BadSecurityPolicyRejected"):
        intruder.connect(served.url, **user, intrudes="plain")
    with pytest.raises(Refused, match="BadCertificateInvalid"):
        intruder.connect(served.url, **refused["BadCertificateUntrusted"], intrudes=str(made / "client.pem"))
    intruder.close()
    assert re.search(
        r"refused the client CN=stranger \(thumbprint [0-9a-f]{40}\): .* not in", served.plant.log
    )

    # Trust needs no restart, and neither does its end.
    stranger = served.as_scada(
        policy="Aes256Sha256RsaPss",
        certificate=str(made / "stranger.pem"),
        key=str(made / "stranger.key.pem"),
    )
    trusted = made / "trusted/stranger.pem"
    trusted.write_bytes((made / "stranger.pem").read_bytes())
    client.connect(served.url, **stranger)
    assert client.read(STATE)[0] == "Good"
    trusted.unlink()
    with pytest.raises(Refused, match="BadCertificateUntrusted"):
        client.connect(served.url, **stranger)


def test_results_and_state(served: Served, client: OpcuaClient) -> None:
    client.connect(served.url, **served.as_scada())
    until(lambda: client.read(LAST)[0] == "BadWaitingForInitialData")
    client.tell(do="listen")
    served.judge(29)
    served.judge(decision="reject", part="Teil ä", peak={"x": 5, "y": 6}, model="lid-xs")
    served.judge(decision="fault", reason="deadline", score=None, peak=None, part=None)
    until(lambda: client.count() == 31, what=client.events)

    # Events: typed fields, each verdict once and in order.
    found = client.results()
    assert [event["Seq"] for event in found] == list(range(1, 32))
    assert [event["Decision"] for event in found] == [1] * 29 + [2, 3]
    reject, fault = found[-2:]
    assert (reject["Score"], reject["Threshold"], reject["PeakX"], reject["PeakY"]) == (0.5, 0.25, 5, 6)
    assert reject["PartId"]["Id"] == "Teil ä" and reject["ResultId"]["Id"] == "aa-30"
    assert (reject["Severity"], reject["ResultState"], reject["Repeated"]) == (500, 1, False)
    assert reject["CapturedAt"] == "2026-01-31T12:00:00.123456+00:00" and reject["TotalMs"] == 22.0
    assert (fault["Reason"], fault["ResultState"], fault["Severity"]) == ("deadline", 4, 700)
    assert "Score" not in fault and "PartId" not in fault and fault["Model"] == "flange-xs"
    assert content(reject)["Decision"] == 2 and content(fault)["Score"] is None
    assert reject["InternalRecipeId"]["Id"] == "lid" and fault["InternalConfigurationId"]["Id"] == "flange"

    # Variables.
    quality, last = client.read(LAST)
    assert quality == "Good" and last["ResultId"]["Id"] == "aa-31" and content(last)["Reason"] == "deadline"
    assert client.read(f"{LAST}.ResultState") == ("Good", 4)
    assert client.read(f"{LAST}.ProcessingTimes")[1]["ProcessingDuration"] == 22.0
    assert client.read("SystemState")[1]["State"] == 1  # production
    assert client.read("Cameras.top") == ("Good", "running")
    until(lambda: client.read("Passes") == ("Good", 31))


def test_results_can_be_asked_for(served: Served, client: OpcuaClient) -> None:
    """After the results of the test before: the last ones in a list, older ones by their ids."""
    client.connect(served.url, **served.as_scada())
    anything = ["MeasIdDataType", ""]
    ids = [anything, ["PartIdDataType", ""], *([["RecipeIdExternalDataType", ""]] * 2)]
    ids += [*([["ConfigurationIdDataType", ""]] * 2), ["ProductIdDataType", ""], ["JobIdDataType", ""]]
    complete, count, _, listed, error = client.call(f"{RESULTS}.GetResultListFiltered", -0, *ids, 15, 0, 0)
    assert (complete, count, error) == (False, 15, 0)
    complete, count, _, rest, _ = client.call(f"{RESULTS}.GetResultListFiltered", 0, *ids, 15, 15, 0)
    assert (complete, count) == (True, 5)
    assert [one["ResultId"]["Id"] for one in listed + rest] == [f"aa-{seq}" for seq in range(12, 32)]
    _, _, _, failed, _ = client.call(f"{RESULTS}.GetResultListFiltered", 4, *ids, 0, 0, 0)
    assert [one["ResultId"]["Id"] for one in failed] == ["aa-31"]
    ids[1] = ["PartIdDataType", "Teil ä"]
    _, _, _, parts, _ = client.call(f"{RESULTS}.GetResultListFiltered", 0, *ids, 0, 0, 0)
    assert [one["ResultId"]["Id"] for one in parts] == ["aa-30"]
    _, result, error = client.call(f"{RESULTS}.GetResultById", ["ResultIdDataType", "aa-2"], -1)
    assert error == 0 and content(result)["Seq"] == 2
    for unknown in ("aa-99", "", "aa-1' OR 1", "é-²"):
        assert client.call(f"{RESULTS}.GetResultById", ["ResultIdDataType", unknown], -1)[2] == -1
    parts = client.call(f"{RESULTS}.GetResultComponentsById", ["ResultIdDataType", "aa-30"], -1)
    assert len(parts) == 17 and parts[6]["Id"] == "Teil ä" and parts[-1] == 0
    for arguments in ([["ResultIdDataType", "aa-2"]], [7, -1], [["ResultIdDataType", "aa-2"], 1, 1]):
        with pytest.raises(Refused, match=r"BadArgumentsMissing|BadInvalidArgument|BadTooManyArguments"):
            client.call(f"{RESULTS}.GetResultById", *arguments)


def test_recipes_and_configurations(served: Served, client: OpcuaClient) -> None:
    client.connect(served.url, **served.as_scada())
    client.tell(do="listen")
    # What the docs say of the hash.
    active = client.read(f"{CONFIGURATIONS}.ActiveConfiguration")[1]["InternalId"]
    both = (served.folder / "flange.engine").read_bytes() + b"flange"
    assert active["Id"] == "flange" and active["Hash"] == hashlib.sha256(both).hexdigest()
    _, count, _, known, _ = client.call(f"{CONFIGURATIONS}.GetConfigurationList", 0, 0, -1)
    assert [one["InternalId"]["Id"] for one in known] == ["flange", "lid"] and count == 2
    assert "configuration slow: " in served.plant.log and "missing.engine" in served.plant.log

    # Select through the line's control address.
    state_before = client.read(f"{RECIPES}.Recipes.lid.IsPrepared")
    assert state_before == ("Good", False)
    assert outcome(client, "lid") == 0
    prepared = until(lambda: [event for event in client.events() if "ExternalId" in event])
    assert [event["InternalId"]["Id"] for event in prepared] == ["lid"]
    until(lambda: client.read(f"{RECIPES}.Recipes.lid.IsPrepared") == ("Good", True))
    assert prepare(client, "nothing")[1:] == [False, -1]
    assert outcome(client, "unknown") == -2
    assert "unknown is not prepared: the line refuses: product: found unknown" in served.plant.log
    assert prepare(client, "slow")[1:] == [False, 0]
    assert prepare(client, "lid")[1:] == [False, -5]
    served.line.tell(do="let")
    until(lambda: client.read(f"{RECIPES}.Recipes.slow.IsPrepared") == ("Good", True))
    assert client.read(f"{CONFIGURATIONS}.ActiveConfiguration")[0] == "BadConfigurationError"
    assert client.call(f"{RECIPES}.Recipes.lid.Prepare")[1] == 0
    assert client.call(f"{RECIPES}.Recipes.lid.Unprepare") == [-4]
    until(lambda: client.read(f"{RECIPES}.Recipes.lid.IsPrepared") == ("Good", True))
    with pytest.raises(Refused, match="BadNotExecutable"):
        client.call("VisionStateMachine.Halt", -1, 0)
    with pytest.raises(Refused, match="BadNotWritable"):
        client.tell(do="write", path="LineState", text="all is well")


def test_who_has_no_control_may_read(served: Served, client: OpcuaClient) -> None:
    made = served.certificates
    historian = {"user_certificate": str(made / "historian.pem"), "user_key": str(made / "historian.key.pem")}
    how = {key: value for key, value in served.as_scada().items() if key not in ("user", "password")}
    client.connect(served.url, **how | historian | {"policy": "Aes256Sha256RsaPss"})
    assert client.read(STATE)[0] == "Good"
    with pytest.raises(Refused, match="BadUserAccessDenied"):
        prepare(client, "lid")
    with pytest.raises(Refused, match="BadUserAccessDenied"):
        client.call(f"{RECIPES}.Recipes.lid.Prepare")


@pytest.mark.skipif(
    shutil.which("node") is None or not (Path(NODE_MODULES) / "node-opcua-client").is_dir(),
    reason="needs node, and $INSPECTD_NODE_MODULES with node-opcua-client (npm install node-opcua-client)",
)
def test_node_opcua_reads_hears_and_calls(served: Served) -> None:
    made = served.certificates
    node = subprocess.Popen(
        ["node", SCRIPT, served.url, made / "client.pem", made / "client.key.pem", "scada", PASSWORD],
        env=os.environ | {"NODE_PATH": NODE_MODULES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert node.stdout is not None
    assert any(line == "listening\n" for line in node.stdout), node.communicate()
    seq = served.judge(decision="reject", part="node")
    out, err = node.communicate(timeout=120)
    assert node.returncode == 0, err
    said = json.loads(out.splitlines()[-1])
    assert said["state"] == ["Operational", "Good"]
    assert said["types"] == {
        "": "VisionSystemType", "ResultManagement": "ResultManagementType",
        "RecipeManagement": "RecipeManagementType", "ConfigurationManagement": "ConfigurationManagementType",
        "VisionStateMachine": "VisionStateMachineType",
        "VisionStateMachine.AutomaticModeStateMachine": "VisionAutomaticModeStateMachineType",
        "ResultManagement.Results.LastResult": "ResultType", "RecipeManagement.Recipes.lid": "RecipeType",
    }  # fmt: skip
    assert said["missing"] == []
    (event,) = said["events"]
    assert event["partId"] == "node" and event["decision"] == 2 and event["content"]["decision"] == 2
    assert event["content"]["camera"] == "top" and event["recipe"] == "RecipeIdInternalDataType"
    assert said["byId"] == {"error": 0, "seq": seq, "score": 0.5}
    assert said["prepare"] == {"status": "Good", "error": 0, "id": "lid"}
    assert said["unknown"] == -1 and said["halt"] == "BadNotExecutable"


def test_a_hung_client_holds_nobody_up_and_is_hung_up_on(served: Served, client: OpcuaClient) -> None:
    hung, third, fourth = OpcuaClient(), OpcuaClient(), OpcuaClient()
    try:
        client.connect(served.url, **served.as_scada())
        client.tell(do="listen")
        heard = client.count()
        hung.connect(served.url, **served.as_scada(session_ms=5000))
        hung.tell(do="listen")
        third.connect(served.url, **served.as_scada())
        with pytest.raises(Refused):  # one more than the config lets in
            fourth.connect(served.url, **served.as_scada(timeout_s=5))
        hung.process.send_signal(signal.SIGSTOP)
        memory = 0.0
        for due in range(150, 1201, 150):
            served.judge(150)
            until(partial(has_heard, client, heard + due), what=lambda: served.plant.log)
            if due == 600:
                memory = served.plant.memory_mb()  # the hung one's queue is full
        found = [event["Seq"] for event in client.results()[heard:]]
        assert found == list(range(found[0], found[0] + 1200))
        # 600 more events of some 8 kB would be 5 MB, were they kept for the hung one; measured: 0.1 MB.
        assert served.plant.memory_mb() < memory + 3
        # The hung one's place is free when its session has ended.
        assert until(lambda: tried(fourth, served)) == "Good"
    finally:
        for one in (hung, third, fourth):
            one.process.send_signal(signal.SIGCONT)
            one.close()


def has_heard(client: OpcuaClient, results: int) -> bool:
    return client.count() >= results


def tried(client: OpcuaClient, served: Served) -> str | None:
    try:
        client.connect(served.url, **served.as_scada(timeout_s=5))
    except Refused:
        return None
    return client.read("LineState")[0]


def test_the_example_of_the_docs(served: Served) -> None:
    example = subprocess.Popen(
        [sys.executable, REPOSITORY / "examples" / "opcua_results.py", served.url, "scada", PASSWORD],
        cwd=served.certificates, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert example.stdout is not None
    assert example.stdout.readline() == "listening\n", example.communicate()
    seq = served.judge(decision="reject")
    assert example.stdout.readline() == f"reject {seq} top 0.5\n"
    example.kill()
    example.communicate()


def test_silence_is_bad_quality_and_a_killed_server_loses_nothing(
    served: Served, client: OpcuaClient
) -> None:
    client.connect(served.url, **served.as_scada())
    before = len(client.changes())
    client.tell(do="listen")
    seq = served.judge()
    until(lambda: client.read(f"{LAST}.ResultId")[1] is not None)
    served.line.kill()
    until(lambda: client.read(STATE)[0] == "BadNoCommunication")
    until(lambda: client.changes()[before:] == [["Good", "Operational"], ["BadNoCommunication", None]])
    for path in (LAST, f"{LAST}.ResultState", "LineState", "Passes", "SystemState", "Cameras.top"):
        assert client.read(path) == ("BadNoCommunication", None), path
    told = until(lambda: [event for event in client.events() if event.get("Transition")])
    assert told[-1]["Transition"]["Text"] == "OperationalToErrorAuto"
    assert prepare(client, "lid")[2] in (0, -3)  # 0: it goes on, and the line is asked for two minutes

    # Killed while the line is away, and started again before it: the server is there, and says so.
    served.plant.process.send_signal(signal.SIGKILL)
    served.plant.close()
    served.plant = Plant(served.config)
    assert until(lambda: tried_state(client, served)) == "BadNoCommunication"
    # What was delivered before the kill can be asked for.
    _, result, error = client.call(f"{RESULTS}.GetResultById", ["ResultIdDataType", f"aa-{seq}"], -1)
    assert error == 0 and content(result)["Seq"] == seq
    client.tell(do="listen")
    served.line.start(boot="bb")
    until(lambda: client.read(STATE)[0] == "Good")
    assert client.read(LAST)[0] in ("BadWaitingForInitialData", "BadOutOfService")
    served.plant.until_connected("opcua")
    served.line.judge(1, 1)
    until(lambda: client.read(f"{LAST}.ResultId")[1] == {"Id": "bb-1"})


def tried_state(client: OpcuaClient, served: Served) -> str | None:
    try:
        client.connect(served.url, **served.as_scada())
    except Refused:
        return None
    return client.read(STATE)[0]


def test_each_mistake_is_one_line(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: tcp://127.0.0.1:5560\ncontrol: tcp://127.0.0.1:5561\n"
    )
    (tmp_path / "garbage.pem").write_text("-----BEGIN CERTIFICATE-----\nno\n")
    (tmp_path / "open.password").write_text("open")
    certify(tmp_path, "expired", days=(-9, -2))
    certify(tmp_path, "later", days=(2, 9))
    certify(tmp_path, "small", bits=1024)
    certify(tmp_path, "nameless", uri=None)
    shutil.copy(made / "server.key.pem", tmp_path / "open.key.pem")
    (tmp_path / "open.key.pem").chmod(0o644)
    users = {"scada": {"password": str(made / "scada.password")}}
    good: dict[str, Any] = {
        "listen": f"opc.tcp://127.0.0.1:{free_port()}",
        "certificate": str(made / "server.pem"),
        "certificate_key": str(made / "server.key.pem"),
        "trusted": str(made / "trusted"),
        "users": users,
    }
    for changes, wanted in (
        ({"users": {}}, "opcua.users: missing; expected users, or anonymous: true"),
        ({"certificate": None}, "opcua.certificate_key: found beside security ['None']"),
        (
            {"certificate": None, "listen": "opc.tcp://0.0.0.0:4840"},
            "opcua.certificate: missing; expected it",
        ),
        ({"certificate_key": None}, "opcua.certificate_key: missing; expected it for Basic256Sha256"),
        ({"trusted": None}, "opcua.trusted: missing; expected the folder"),
        ({"trusted": "none"}, "none cannot be read: No such file"),
        ({"trusted": str(tmp_path)}, "opcua.trusted: "),
        ({"certificate": "none.pem"}, "opcua.certificate: "),
        ({"certificate": "garbage.pem"}, "garbage.pem holds no certificate in PEM or DER"),
        ({"certificate": "expired.pem"}, "expired.pem has expired on 2"),
        ({"certificate": "later.pem"}, "later.pem is valid from 2"),
        ({"certificate": "small.pem"}, "small.pem has another key than RSA with at least 2048 bits"),
        (
            {"certificate": "nameless.pem", "certificate_key": "nameless.key.pem"},
            "nameless.pem names no application: expected subjectAltName=URI:urn:…",
        ),
        ({"certificate_key": str(made / "stranger.key.pem")}, "stranger.key.pem is not the key of "),
        ({"certificate_key": "garbage.pem"}, "garbage.pem holds no private key in PEM without a password"),
        ({"certificate_key": "open.key.pem"}, "open.key.pem has mode 0644; expected 0600 or 0640"),
        ({"users": {"a": {"password": "none"}}}, "opcua.users.a.password: "),
        ({"users": {"a": {"password": "open.password"}}}, "open.password has mode 0644"),
        ({"users": {"a": {"certificate": "expired.pem"}}}, "opcua.users.a.certificate: "),
        ({"users": {"a": {}}}, "opcua.users.a: expected one of password and certificate"),
        ({"listen": "opc.tcp://0.0.0.0"}, None),
        ({"listen": "opc.tcp://line3:4840"}, "expected an address of this machine such as opc.tcp://127"),
        ({"listen": "opc.tcp://127.0.0.1:70000"}, "expected a port from 1 to 65535"),
        ({"security": ["Basic128Rsa15"]}, "opcua.security"),
        ({"keep": 0}, "opcua.keep"),
        ({"anonymus": True}, "opcua.anonymus: unknown key; did you mean anonymous?"),
    ):
        section = {key: value for key, value in (good | changes).items() if value is not None}
        config = write_plant(tmp_path, opcua=section)
        if wanted is not None:
            assert wanted in complaint(config)
    config = write_plant(tmp_path, opcua=good)
    with socket.create_server(("127.0.0.1", int(good["listen"].rpartition(":")[2]))):
        server = open_outputs(load_plant(config), lambda: LineNow("line3", None, silent=True))["opcua"]
        with pytest.raises(PeerFailed, match=f"^{good['listen']}: is taken by another program$"):
            server.connect()
    with monkeypatch.context() as patch:
        patch.setattr("plant.outputs.opcua.nodeset.NODESET", tmp_path / "missing.xml")
        with pytest.raises(InputError, match=r"missing\.xml: missing; expected it with inspectd"):
            open_outputs(load_plant(config), lambda: LineNow("line3", None, silent=True))
    monkeypatch.setattr("plant.outputs.open.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^opcua: needs asyncua, .* pip install 'inspectd\[opcua\]'$"):
        open_outputs(load_plant(config), lambda: LineNow("line3", None, silent=True))
