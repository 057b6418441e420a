"""Of a line that encrypts, each output takes its place with a key of its own."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery_line import DeliveryLine
from plant_rig import complaint, free_port, plant, until, write_plant
from test_plant_alarms import Web
from test_security_access import inspectctl, public_key

from lines.line_config import read_line

pytestmark = pytest.mark.slow


def test_an_output_has_its_place_under_the_name_of_its_key(tmp_path: Path) -> None:
    for name in ("line3", "plant", "plant-webhook"):
        assert inspectctl("keygen", name, "--out", tmp_path).returncode == 0
    clients = {name: {"key": public_key(tmp_path, name)} for name in ("plant", "plant-webhook")}
    curve = {"secret_key": str(tmp_path / "line3.key_secret"), "clients": clients}
    line, web = DeliveryLine(tmp_path, curve=curve), Web()
    keys: dict[str, Any] = {
        "key": "plant.key_secret",
        "server_key": "line3.key",
        "webhook": {
            "url": f"http://127.0.0.1:{web.port}/",
            "line_key": "plant-webhook.key_secret",
            "decisions": ["pass"],
        },
    }
    config = write_plant(tmp_path, line, **keys)
    lines = tmp_path / "line3.yaml"
    lines.write_text(yaml.safe_dump(yaml.safe_load(lines.read_text()) | {"curve": curve}))
    read = read_line(lines, tmp_path / "plant.key_secret", tmp_path / "line3.key")
    assert read.curve is not None and read.read_again() == read
    try:
        with plant(config) as running:
            running.until_connected("webhook")
            line.judge(1, 5)
            until(lambda: sum(len(body["verdicts"]) for body in web.bodies()) == 5, what=lambda: running.log)
            assert set(line.snapshot()["subscribers"]) == {"plant-webhook"}
            until(lambda: running.health()["state"] == "running")
    finally:
        line.kill()

    def said(**changes: Any) -> str:
        return complaint(write_plant(tmp_path, **(keys | changes)))

    mqtt = {"broker": f"mqtt://127.0.0.1:{free_port()}", "line_key": "plant-webhook.key_secret"}
    assert "mqtt.subscriber: found plant-webhook, which webhook has; expected a line_key of its own" in said(
        mqtt=mqtt
    )
    assert "expected the keys key and server_key beside it" in said(server_key=None)
    assert "none.key_secret: cannot be read" in said(
        webhook=keys["webhook"] | {"line_key": "none.key_secret"}
    )
