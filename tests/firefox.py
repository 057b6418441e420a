"""Debian's own Firefox, driven by WebDriver BiDi (W3C) without a package between.

Playwright speaks it too, but asks for more than an ESR knows. Pages here have the few methods of Playwright's
that the tests of both browsers share.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

FIREFOX = "/usr/bin/firefox-esr"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "PageDown": "\ue00f", "End": "\ue010"}
PREFERENCES = {
    "intl.accept_languages": "en-GB",
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "layout.css.prefers-color-scheme.content-override": 0,
    "ui.prefersReducedMotion": 1,
}
"""A page in British English, dark, with reduced motion; Firefox itself asks nobody anything."""


class Page:
    """One page of the browser.

    Attributes:
        errors: what its console complained of.
    """

    def __init__(self, socket: Any) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._number = 0
        self._send("session.new", capabilities={})
        self._send("session.subscribe", events=["log.entryAdded"])
        [first] = self._send("browsingContext.getTree")["contexts"]
        self._context = first["context"]

    def _send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if said.get("method") == "log.entryAdded" and said["params"]["level"] == "error":
                self.errors.append(said["params"]["text"])
            if said.get("id") == self._number:
                assert said["type"] == "success", f"{method}: {said['message']}"
                return said["result"]

    def goto(self, address: str) -> None:
        self._send("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def set_viewport_size(self, size: dict[str, int]) -> None:
        self._send("browsingContext.setViewport", context=self._context, viewport=size)

    def evaluate(self, code: str, argument: Any = None) -> Any:
        """Give the value of an expression, or of a function that is called with the argument."""
        given = json.dumps(argument)
        expression = f"""(async () => {{
            const it = ({code.strip().rstrip(";")});
            return JSON.stringify(await (typeof it === 'function' ? it({given}) : it)) ?? 'null';
        }})()"""
        found = self._send(
            "script.evaluate", expression=expression, target={"context": self._context}, awaitPromise=True
        )
        assert found["type"] == "success", found["exceptionDetails"]["text"]
        return json.loads(found["result"]["value"])

    def add_script_tag(self, path: Path) -> None:
        self._send(
            "script.evaluate",
            expression=path.read_text(),
            target={"context": self._context},
            awaitPromise=False,
        )

    def wait_for_function(self, condition: str) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not self.evaluate(condition):
            assert time.monotonic() < give_up, f"{condition}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        typed = KEYS.get(key, key)
        actions = [{"type": kind, "value": typed} for kind in ("keyDown", "keyUp")]
        self._send(
            "input.performActions",
            context=self._context,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )


@contextmanager
def firefox(profile: Path) -> Iterator[Page]:
    """Run the browser with a new profile, and give its page; skips where there is none."""
    client = pytest.importorskip("websockets.sync.client", reason="needs the extra dashboard")
    if not Path(FIREFOX).exists():
        pytest.skip(f"{FIREFOX} is not installed: apt install firefox-esr")
    profile.mkdir()
    given = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(given))
    log = profile / "stderr"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [FIREFOX, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"],
            stderr=errors,
            stdout=subprocess.DEVNULL,
        )
    try:
        give_up = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        with client.connect(f"{found[1]}/session", max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
        process.kill()
        process.wait()
