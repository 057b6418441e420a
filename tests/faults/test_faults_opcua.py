"""Clients of OPC UA are refused, hang or die, and so does their server: the line goes on, nothing is lost."""

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from opcua_client import OpcuaClient, Refused
from plant_rig import Plant, free_port, plant, write_plant

from faults.trial import BELT, Trial

pytest.importorskip("asyncua", reason="needs asyncua: pip install 'inspectd[opcua]'")
pytestmark = pytest.mark.slow

STATE = "VisionStateMachine.CurrentState"
Got = TypeVar("Got")


class Scada:
    """Clients of one server, and a line that is listened to while they wait for it."""

    def __init__(self, trial: Trial) -> None:
        from test_plant_opcua import certify

        self.trial = trial
        self.folder = folder = trial.folder
        (folder / "trusted").mkdir()
        for name in ("server", "client", "stranger"):
            certify(folder, name)
        shutil.copy(folder / "client.pem", folder / "trusted")
        (folder / "scada.password").touch(0o600)
        (folder / "scada.password").write_text("drehmoment 7")
        self.url = f"opc.tcp://127.0.0.1:{free_port()}"
        self.section = {
            "listen": self.url,
            "security": ["Basic256Sha256"],
            "certificate": "server.pem",
            "certificate_key": "server.key.pem",
            "trusted": "trusted",
            "users": {"scada": {"password": "scada.password"}},
            "clients": 2,
        }
        self.seen: set[str] = set()
        self.first = 0
        self._clients: list[OpcuaClient] = []

    def started(self) -> OpcuaClient:
        """Start a client's process."""
        self._clients.append(OpcuaClient())
        return self._clients[-1]

    def connect(self, client: OpcuaClient, certificate: str = "client", **changes: Any) -> None:
        how: dict[str, Any] = {
            "policy": "Basic256Sha256",
            "certificate": str(self.folder / f"{certificate}.pem"),
            "key": str(self.folder / f"{certificate}.key.pem"),
            "user": "scada",
            "password": "drehmoment 7",
        }
        self.meanwhile(lambda: client.connect(self.url, **how | changes))

    def wait_for(self, running: Plant) -> None:
        """Wait until the server is there: making its address space takes a while."""
        self.trial.wait_until(lambda: running.output("opcua")["state"] == "connected")

    def meanwhile(self, call: Callable[[], Got]) -> Got:
        """Do something that takes its time, and listen to the line."""
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(call)
            self.trial.wait_until(future.done)
            return future.result()

    def listen(self, client: OpcuaClient) -> None:
        """Have a client listen, and wait until it hears results."""
        self.meanwhile(lambda: client.tell(do="listen"))
        before = client.count()
        self.trial.wait_until(lambda: client.count() > before + 5)

    def is_let_in(self, client: OpcuaClient) -> bool:
        try:
            self.connect(client, timeout_s=5)
        except Refused:
            return False
        return True

    def inject(self) -> None:
        """Note that the fault is brought about now, and which verdicts were before it."""
        self.trial.inject()
        self.first = len(self.trial.verdicts)

    def hear(self, client: OpcuaClient) -> int:
        """Take down what a client has heard of one start of the daemon, which has to be without gaps."""
        heard = client.results()
        seqs = [event["Seq"] for event in heard]
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        self.seen.update(event["ResultId"]["Id"] for event in heard)
        return int(seqs[-1])

    def ask_for_the_rest(self, client: OpcuaClient) -> None:
        """Have a client ask for each result since the fault that nobody has heard."""
        ids = [f"{verdict.boot}-{verdict.seq}" for verdict in self.trial.verdicts[self.first :]]
        missed = [name for name in ids if name not in self.seen]
        assert missed
        for name in missed:
            wanted = ["ResultIdDataType", name]
            _, result, error = client.call("ResultManagement.GetResultById", wanted, -1)
            assert error == 0 and result["ResultId"]["Id"] == name

    def close(self) -> None:
        for client in self._clients:
            client.process.send_signal(signal.SIGCONT)
            client.close()


@pytest.mark.faults("Plant", "OPC UA client whose certificate nobody trusts")
def test_opcua(trial: Trial) -> None:
    trial.start({"top": BELT | {"fps": 40}})
    scada = Scada(trial)
    config = write_plant(trial.folder, opcua=scada.section, silence="2 s")
    first, third = scada.started(), scada.started()
    try:
        with plant(config) as running:
            scada.wait_for(running)
            scada.connect(first)
            scada.listen(first)
            _are_refused_or_hang(trial, scada, running, first, third)
            _die(trial, scada, running, first, third)
        with plant(config) as running:
            scada.wait_for(running)
            scada.connect(third)
            scada.listen(third)
            scada.meanwhile(lambda: scada.ask_for_the_rest(third))
            assert running.output("opcua")["lost"] == 0 and "Traceback" not in running.log
    finally:
        scada.close()
    trial.finish(possible=[("top", "shutdown"), ("top", "camera"), ("top", "deadline")])


def _are_refused_or_hang(
    trial: Trial, scada: Scada, running: Plant, first: OpcuaClient, third: OpcuaClient
) -> None:
    second = scada.started()
    trial.inject()
    with pytest.raises(Refused, match="BadCertificateUntrusted"):
        scada.connect(second, "stranger")
    trial.detected_by("log of inspectd-plant", lambda: "opcua: refused the client" in running.log)
    trial.uninterrupted(verdicts=20)

    trial.another("OPC UA client too many: the `clients` of the config are there")
    scada.connect(second, session_ms=2000)
    scada.listen(second)
    trial.inject()
    with pytest.raises(Refused):
        scada.connect(third, timeout_s=5)
    trial.told_by_command("the client")
    trial.uninterrupted(verdicts=20)

    trial.another("OPC UA client that hangs (SIGSTOP) while it listens: its session ends")
    trial.inject()
    second.process.send_signal(signal.SIGSTOP)
    trial.not_told()
    trial.uninterrupted(verdicts=60)
    last = trial.verdicts[-1].seq
    trial.wait_until(lambda: scada.hear(first) >= last)
    trial.wait_until(lambda: scada.is_let_in(third))  # the hung one's place is free


def _die(trial: Trial, scada: Scada, running: Plant, first: OpcuaClient, third: OpcuaClient) -> None:
    trial.another("OPC UA client killed (SIGKILL); another asks for what it missed")
    scada.hear(first)
    scada.inject()
    first.process.kill()
    trial.not_told()
    trial.uninterrupted(verdicts=20)
    scada.listen(third)
    scada.hear(third)
    scada.meanwhile(lambda: scada.ask_for_the_rest(third))

    trial.another("inspectd killed (SIGKILL) behind an OPC UA server: no old value is shown as good")
    trial.inject()
    trial.killed()
    trial.detected_by("quality BadNoCommunication", lambda: third.read(STATE)[0] == "BadNoCommunication")
    trial.launch(None)
    trial.recovered()
    trial.wait_until(lambda: third.read(STATE)[0] == "Good")

    trial.another("inspectd-plant killed (SIGKILL) with its OPC UA server, started again")
    scada.inject()
    running.process.send_signal(signal.SIGKILL)
    trial.not_told()
    trial.uninterrupted(verdicts=20)
