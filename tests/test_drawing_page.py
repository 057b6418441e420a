"""The page on which a mask is drawn, in a real browser, served by the real command."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from line_rig import COMMANDS
from page_rig import AXE, chromium

from pictures.mask import read_mask

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 160, 120


class Drawing(NamedTuple):
    """The command that serves the page."""

    process: "subprocess.Popen[str]"
    address: str
    out: Path

    def refused(self, address: str, content: bytes | None = None, **headers: str) -> Any:
        """Ask as somebody does who is not the page."""
        with pytest.raises(urllib.error.HTTPError) as found:
            urllib.request.urlopen(urllib.request.Request(address, content, headers))
        return json.load(found.value)["said"]


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Drawing]:
    picture, out = tmp_path / "part.png", tmp_path / "part.mask.yaml"
    cv2.imwrite(str(picture), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    part = {"name": "part", "polygon": [[0, 0], [40, 0], [40, 60], [0, 60]]}
    whole = {"width": WIDTH, "height": HEIGHT}
    out.write_text(yaml.safe_dump({"format_version": 1, "picture": whole, "regions": [part]}))
    command = [COMMANDS / "inspectctl", "mask", "draw", picture, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
        assert found is not None
        yield Drawing(process, found[0], out)
    finally:
        process.kill()
        process.wait()


def said(page: Any, start: str) -> str:
    page.wait_for_function(
        "start => document.getElementById('said').textContent.startsWith(start)", arg=start, timeout=60_000
    )
    return str(page.locator("#said").text_content())


def test_regions_are_drawn_over_the_picture_and_saved(drawing: Drawing) -> None:
    wrong: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.on("console", lambda entry: wrong.append(entry.text) if entry.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(drawing.address)
        page.wait_for_selector("#regions tr")  # what the file holds is drawn on
        box = page.locator("#picture").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left = box["x"] + (box["width"] - WIDTH * scale) / 2
        top = box["y"] + (box["height"] - HEIGHT * scale) / 2
        for x, y in ((60, 10), (150, 10), (150, 100), (60, 100), (60, 10)):
            page.mouse.click(left + x * scale, top + y * scale)
        page.wait_for_selector("#regions tr:nth-child(2)")
        page.get_by_label("Weight").nth(1).fill("2")
        page.get_by_label("Own threshold").nth(1).fill("3")
        page.get_by_role("button", name="Save").click()
        assert "expected one of both" in said(page, "not saved")
        assert read_mask(drawing.out).names == ("part",)
        page.get_by_label("Own threshold").nth(1).fill("")
        page.get_by_label("Name", exact=True).nth(1).fill("seal")
        page.get_by_role("button", name="Save").click()
        said(page, "saved")
        result = page.evaluate(f"async () => {{ {AXE.read_text()}; return (await axe.run()).violations }}")
    assert [violation["id"] for violation in result] == []
    assert [text for text in wrong if "400" not in text] == []
    mask = read_mask(drawing.out)
    assert mask.names == ("part", "seal")
    assert (mask.weights[50, 100], mask.weights[30, 20], mask.weights[110, 100]) == (2, 1, 0)
    drawing.process.send_signal(signal.SIGINT)
    out, errors = drawing.process.communicate(timeout=60)
    assert drawing.process.returncode == 0 and errors == ""
    assert "next: calibrate" in out


def test_the_page_answers_nobody_else_and_saves_no_nonsense(drawing: Drawing) -> None:
    before, regions = drawing.out.read_bytes(), drawing.address + "regions"
    assert drawing.refused(drawing.address.rsplit("/", 2)[0] + "/guessed/regions") == "not found"
    assert drawing.refused(regions, Host="evil.example") == "not found"
    assert drawing.refused(regions, b"[]", **{"Sec-Fetch-Site": "cross-site"}) == "not found"
    corners = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT]]
    for content, complaint in (
        ([{"name": "none", "polygon": corners, "weight": 0}], "leaves nothing to look at"),
        ([], "has no region"),
        ([{"name": "two", "polygon": corners[:2]}], "not saved: region 1.polygon"),
        ([{"name": "far", "polygon": [[900, 0], [950, 0], [950, 9]]}], "does not lie inside the picture"),
        ({"name": "part"}, "not saved"),
    ):
        assert complaint in drawing.refused(regions, json.dumps(content).encode())
    assert drawing.out.read_bytes() == before
