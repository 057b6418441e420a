"""The dashboard beside a real line: what it shows, what people do there, what it changes on the line."""

import asyncio
import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import websockets
from dashboard_rig import Browser, Dashboard, add_users, dashboard, run_dashboard, write_dashboard, write_line
from line_rig import RunningLine, running

from calibration.calibration_file import read_calibration

LINE = "/api/lines/line3"
pytestmark = pytest.mark.slow


class Shop(NamedTuple):
    """A line and its dashboard."""

    line: RunningLine
    served: Dashboard
    anna: Browser
    ben: Browser
    calibration: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, brightness_engine: Path) -> Iterator[Shop]:
    """One line and one dashboard for all tests here, with two users that may change things."""
    from brightness import THRESHOLD, calibrate

    folder = tmp_path_factory.mktemp("shop")
    engine = folder / "brightness.engine"
    engine.write_bytes(brightness_engine.read_bytes())
    products = {}
    for name, threshold in (("flange", THRESHOLD), ("washer", 0.75)):
        calibrate(engine, folder / f"{name}.calibration.yaml", threshold)
        products[name] = {"engine": engine.name, "calibration": f"{name}.calibration.yaml"}
    calibration = folder / "flange.calibration.yaml"
    config = write_line(
        folder,
        engine=None,
        calibration=None,
        products=products,
        archive={"folder": "rejects", "max_mb": 50, "sample": 0.5},
        preview={"folder": "preview"},
    )
    page = write_dashboard(folder, ["line3.yaml"], kinds=["scratch", "<script>alert(1)"])
    added = run_dashboard("--config", page, "--user", "anna", "--role", "change", given="annas secret\n")
    assert added.returncode == 0, added.stderr
    add_users(folder / "state/labels", ben="change")
    with running(config) as line, dashboard(page) as served:
        line.until(lambda line: line.health.state == "running" and len(line.verdicts) > 20)
        browsers = []
        for name in ("anna", "ben"):
            browser = served.browser()
            assert browser.login(name).status_code == 200
            browsers.append(browser)
        browsers[0].until(f"{LINE}/verdicts", lambda found: found["total"] >= 5, pictures="true")
        yield Shop(line, served, browsers[0], browsers[1], calibration)


def a_reject(browser: Browser, **query: Any) -> str:
    """Give the id of a reject whose pictures are there by now."""
    found = browser.ok(f"{LINE}/verdicts", limit=1, sort="oldest", **query)
    return str(found["items"][0]["id"])


def test_the_line_page_tells_state_counts_and_cameras(shop: Shop) -> None:
    state = shop.anna.until(LINE, lambda state: state["state"]["code"] == "running")
    assert state["threshold"] == 0.5
    assert state["cameras"]["top"]["state"] == "running"
    assert state["cameras"]["top"]["preview"]["source"] in {"archive", "live"}
    assert state["counts"]["hour"]["reject"] > 0
    assert [reject["decision"] for reject in state["last_rejects"]] == ["reject"] * len(state["last_rejects"])
    picture = shop.anna.get(state["cameras"]["top"]["preview"]["url"])
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_every_verdict_of_the_journal_is_in_the_gallery(shop: Shop) -> None:
    shop.line.until(lambda line: len(line.verdicts) > 40)
    last = shop.line.verdicts[-1].seq
    shop.anna.until(
        f"{LINE}/verdicts",
        lambda found: found["items"] and int(found["items"][0]["id"].rpartition("-")[2]) >= last,
        decision="pass,reject,fault",
    )
    found = shop.anna.ok(f"{LINE}/verdicts", decision="pass,reject,fault", sort="oldest", limit=40)
    heard = {f"{verdict.boot}-{verdict.seq}": verdict for verdict in shop.line.verdicts}
    assert [int(item["id"].rpartition("-")[2]) for item in found["items"]] == list(range(1, 41))
    for item in found["items"]:
        if item["id"] in heard:
            assert (item["score"], item["decision"]) == (heard[item["id"]].score, heard[item["id"]].decision)


def test_filters_find_what_they_say(shop: Shop) -> None:
    for query, expected in (
        ({"camera": "top"}, True),
        ({"camera": "nowhere"}, False),
        ({"peak": "20,20,40,40"}, True),
        ({"peak": "0,0,5,5"}, False),
        ({"score_min": 0.9}, True),
        ({"score_max": 0.9}, False),
        ({"part": "03.PNG"}, True),
        ({"product": "flange"}, True),
        ({"product": "-"}, False),
        ({"product": "washer"}, False),
        ({"to": 1000}, False),
    ):
        assert bool(shop.anna.ok(f"{LINE}/verdicts", **query)["total"]) is expected, query


@pytest.mark.parametrize(
    "query",
    [{"hours": 1}, {"score_min": "x"}, {"sort": "best"}, {"peak": "1,2"}, {"limit": 0}, {"label": "bad"}],
)
def test_a_wrong_filter_is_refused(shop: Shop, query: dict[str, Any]) -> None:
    answer = shop.anna.get(f"{LINE}/verdicts", **query)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_query"
    assert answer.json()["error"]["values"]["key"] in query


def test_a_reject_in_detail(shop: Shop) -> None:
    name = a_reject(shop.anna)
    found = shop.anna.ok(f"{LINE}/verdicts/{name}")
    assert found["verdict"]["id"] == name
    assert name in [verdict["id"] for verdict in found["around"]]
    for what, kind in (("frame", "image/png"), ("overlay", "image/jpeg")):
        picture = shop.anna.get(found["pictures"][what]["url"])
        assert picture.headers["content-type"] == kind
        assert "immutable" in picture.headers["cache-control"]
    assert shop.anna.get(f"{LINE}/verdicts/{name}/thumbnail.jpg", size=32).status_code == 200
    assert found["similar_good"]["verdict"]["decision"] == "pass"
    assert shop.anna.get(found["similar_good"]["pictures"]["frame"]["url"]).status_code == 200
    # As the picture's own note says, where it brings one: the camera's whole picture.
    assert found["region"] in (None, {"x": 0, "y": 0, "width": 64, "height": 64})


def test_labels_second_opinions_and_undo(shop: Shop) -> None:
    first, second = (
        item["id"] for item in shop.anna.ok(f"{LINE}/verdicts", limit=2, sort="oldest", label="none")["items"]
    )
    said = shop.anna.done(f"{LINE}/labels", ids=[first, second], label="defect", kind="scratch")
    assert [(verdict["label"], verdict["kind"]) for verdict in said["labelled"]] == [
        ("defect", "scratch")
    ] * 2
    assert first not in [item["id"] for item in shop.anna.ok(f"{LINE}/review", sort="oldest")["items"]]

    to_judge = shop.ben.ok(f"{LINE}/review", opinion="second", sort="oldest")["items"]
    assert {first, second} <= {item["id"] for item in to_judge}
    assert {item["label"] for item in to_judge} == {None}
    blind = shop.ben.ok(f"{LINE}/verdicts/{first}", blind="true")
    assert blind["opinions"] == []
    assert "scratch" not in json.dumps(blind)
    assert shop.anna.ok(f"{LINE}/review", opinion="second")["items"] == []

    disagreed = shop.ben.done(f"{LINE}/labels", ids=[first], label="false_reject")
    assert disagreed["labelled"][0]["label"] == "disputed"
    assert disagreed["labelled"][0]["opinions"] == 2
    assert shop.ben.done(f"{LINE}/labels/undo")["undone"][0]["label"] == "defect"
    assert shop.anna.done(f"{LINE}/labels/undo")["undone"][0]["label"] is None
    assert shop.anna.ok("/api/changes", line="line3")["intact"] is True


def test_a_threshold_is_previewed_applied_and_taken_back(shop: Shop) -> None:
    before = read_calibration(shop.calibration)
    shown = shop.anna.ok(f"{LINE}/threshold")
    assert shown["threshold"] == shown["calibrated"] == 0.5
    assert sum(shown["pass"]) == shown["passes"]
    assert sum(shown["reject"]) == shown["rejects"]
    lower = shop.anna.ok(f"{LINE}/threshold/preview", threshold=0.1)
    assert lower["more_rejected"] == shown["passes"]
    assert lower["fewer_rejected"] == 0
    assert len(lower["changing"]) == min(24, lower["changing_total"])

    applied = shop.anna.done(
        f"{LINE}/threshold", product="flange", threshold=0.25, reason="misses since the new lamp", now=0.5
    )
    assert applied["applied"] is True
    after = read_calibration(shop.calibration)
    assert after.threshold == 0.25
    assert after.changed is not None
    assert (after.changed.by, after.changed.reason, after.changed.before) == (
        "anna",
        "misses since the new lamp",
        0.5,
    )
    seen = len(shop.line.verdicts)
    shop.line.until(lambda line: any(verdict.threshold == 0.25 for verdict in line.verdicts[seen:]))

    late = shop.ben.post(f"{LINE}/threshold", product="flange", threshold=0.3, reason="as before", now=0.5)
    assert late.status_code == 409
    assert late.json()["error"]["code"] == "changed_meanwhile"

    back = shop.ben.ok(f"{LINE}/threshold")["back"]
    assert (back["threshold"], back["by"]) == (0.5, "anna")
    assert shop.ben.done(f"{LINE}/threshold/back", product="flange")["threshold"] == 0.5
    assert read_calibration(shop.calibration) == before
    trends = shop.anna.until(
        f"{LINE}/trends",
        lambda found: [mark for mark in found["marks"] if mark["code"] == "threshold"],
        hours=1,
        bucket="minute",
    )
    [first, *_] = [mark for mark in trends["marks"] if mark["code"] == "threshold"]
    assert (first["values"]["to"], first["values"]["by"]) == (0.25, "anna")


def test_a_known_defect_passes_only_with_a_second_person(shop: Shop) -> None:
    name = a_reject(shop.anna)
    shop.anna.done(f"{LINE}/labels", ids=[name], label="defect")
    preview = shop.anna.ok(f"{LINE}/threshold/preview", threshold=2.0)
    assert preview["defects_passing"] == 1
    assert preview["needs_second"] is True
    asked = shop.anna.done(f"{LINE}/threshold", product="flange", threshold=2.0, reason="no reason", now=0.5)
    assert asked["applied"] is False
    number = asked["proposal"]["id"]
    assert read_calibration(shop.calibration).threshold == 0.5
    own = shop.anna.post(f"{LINE}/threshold/proposals/{number}", agree=True)
    assert (own.status_code, own.json()["error"]["code"]) == (403, "own_change")
    assert shop.ben.done(f"{LINE}/threshold/proposals/{number}", agree=True)["applied"] is True
    assert read_calibration(shop.calibration).threshold == 2.0
    assert shop.anna.ok(f"{LINE}/threshold")["proposals"] == []
    shop.anna.done(f"{LINE}/threshold/back", product="flange")
    shop.anna.done(f"{LINE}/labels/undo")


def test_a_threshold_that_the_line_refuses_leaves_the_old_one(shop: Shop) -> None:
    config = shop.calibration.with_name("line3.yaml")
    content, text = config.read_bytes(), shop.calibration.read_bytes()
    config.write_bytes(content + b"no_such_key: 1\n")
    try:
        refused = shop.anna.post(
            f"{LINE}/threshold", product="flange", threshold=0.4, reason="why not", now=0.5
        )
    finally:
        config.write_bytes(content)
    assert refused.status_code == 502
    assert "no_such_key" in refused.json()["error"]["detail"]
    assert shop.calibration.read_bytes() == text


def test_live_messages(shop: Shop) -> None:
    async def listen() -> list[dict[str, Any]]:
        address = shop.served.address.replace("http", "ws") + f"{LINE}/live"
        cookie = f"inspectd_session={shop.anna.client.cookies['inspectd_session']}"
        async with websockets.connect(
            address, origin=shop.served.address, additional_headers={"Cookie": cookie}
        ) as socket:
            await socket.send('{"previews": true}')
            heard: list[dict[str, Any]] = []
            while not {"hello", "verdicts", "state"} <= {message["type"] for message in heard} or not any(
                message["type"] == "preview" and message["preview"]["source"] == "live" for message in heard
            ):
                heard.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
            return heard

    heard = asyncio.run(listen())
    assert heard[0]["type"] == "hello"
    verdicts = next(message for message in heard if message["type"] == "verdicts")
    assert sum(verdicts["counts"].values()) == len(verdicts["points"]) + verdicts["left_out"]
    camera, at, _, decision = verdicts["points"][0]
    assert (camera, decision in {"pass", "reject"}) == ("top", True)
    assert verdicts["at"] - at < 10_000
    [*_, shown] = [message["preview"] for message in heard if message["type"] == "preview"]
    assert (shown["old"], shown["kind"] in {"pass", "reject"}) == (False, True)
    assert shop.anna.get(shown["url"]).content.startswith(b"\xff\xd8")


def test_health_names_the_cause_and_takes_an_acknowledgement(shop: Shop) -> None:
    page = shop.anna.ok(f"{LINE}/health")
    assert all(cause["severity"] == "watch" for cause in page["causes"]), page["causes"]
    assert shop.anna.post(f"{LINE}/health/acknowledge", key="camera_failed:top").status_code == 404


def test_a_change_over_and_who_made_it(shop: Shop) -> None:
    found = shop.anna.ok(f"{LINE}/products")
    assert [(product["name"], product["threshold"]) for product in found["products"]] == [
        ("flange", 0.5),
        ("washer", 0.75),
    ]
    assert (found["now"], found["by"]) == ("flange", None)
    assert "product washer" in shop.ben.done(f"{LINE}/products/select", product="washer")["said"]
    found = shop.anna.until(f"{LINE}/products", lambda found: found["now"] == "washer" and found["by"])
    assert found["by"] == "ben"
    shop.anna.until(f"{LINE}/verdicts", lambda found: found["total"], product="washer")
    assert shop.anna.ok(f"{LINE}/threshold")["product"] == "washer"
    refused = shop.anna.post(f"{LINE}/products/select", product="gasket")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "line_refused")
    shop.anna.done(f"{LINE}/products/select", product="flange")
    shop.anna.until(f"{LINE}/products", lambda found: found["now"] == "flange")
    marks = shop.anna.ok(f"{LINE}/trends", hours=1, bucket="minute")["marks"]
    assert {"from": "flange", "to": "washer"} in [
        mark["values"] for mark in marks if mark["code"] == "product"
    ]


def test_an_export_holds_pictures_tables_and_their_hashes(shop: Shop) -> None:
    name = a_reject(shop.anna)
    shop.anna.done(f"{LINE}/labels", ids=[name], label="defect", kind="<script>alert(1)", note="=1+1")
    job = shop.anna.done(f"{LINE}/exports", format="zip", label="defect")
    done = shop.anna.until(f"/api/jobs/{job['id']}", lambda job: job["state"] not in {"waiting", "running"})
    assert done["state"] == "done", done
    archive = zipfile.ZipFile(io.BytesIO(shop.anna.get(done["result"]).content))
    sums = dict(reversed(line.split("  ")) for line in archive.read("SHA256SUMS").decode().splitlines())
    assert set(sums) == set(archive.namelist()) - {"SHA256SUMS"}
    assert all(hashlib.sha256(archive.read(file)).hexdigest() == found for file, found in sums.items())
    [row] = csv.DictReader(io.StringIO(archive.read("verdicts.csv").decode()))
    assert (row["id"], row["label"], row["frame_file"] in sums) == (name, "defect", True)
    [said] = csv.DictReader(io.StringIO(archive.read("labels.csv").decode()))
    assert said["note"] == "'=1+1"

    job = shop.anna.done(f"{LINE}/exports", format="folders")
    done = shop.anna.until(f"/api/jobs/{job['id']}", lambda job: job["state"] not in {"waiting", "running"})
    archive = zipfile.ZipFile(io.BytesIO(shop.anna.get(done["result"]).content))
    folders = {file.rpartition("/")[0] for file in archive.namelist()}
    assert folders == {"", "defects/<script>alert(1)"}
    shop.anna.done(f"{LINE}/labels/undo")


def test_commands_are_shown_and_say_what_is_missing(shop: Shop) -> None:
    found = shop.anna.ok(f"{LINE}/commands")
    assert [command["name"] for command in found["commands"]] == ["recalibrate", "train"]
    assert re.match(r"calibrate \S+brightness.engine --good ", found["commands"][0]["text"])
    job = shop.anna.done(f"{LINE}/commands/recalibrate")
    done = shop.anna.until(f"/api/jobs/{job['id']}", lambda job: job["state"] not in {"waiting", "running"})
    assert done["state"] == "failed"
    assert "labelled as good" in done["error"]


def test_recalibration_from_labels_runs_and_leaves_its_file(shop: Shop) -> None:
    query = {"decision": "pass", "pictures": "true", "product": "flange", "limit": 40, "sort": "oldest"}
    found = shop.anna.until(f"{LINE}/verdicts", lambda found: len(found["items"]) == 40, **query)
    shop.anna.done(f"{LINE}/labels", ids=[item["id"] for item in found["items"]], label="false_reject")
    job = shop.anna.done(f"{LINE}/commands/recalibrate")
    done = shop.anna.until(f"/api/jobs/{job['id']}", lambda job: job["state"] not in {"waiting", "running"})
    assert done["state"] == "done", done
    made = shop.served.config.parent / "state/labelled/line3/flange.calibration.yaml"
    assert 20 <= read_calibration(made).good_images <= 30
    assert read_calibration(shop.calibration).threshold == 0.5  # nothing was loaded into the line
    shop.anna.done(f"{LINE}/labels/undo")


def test_pictures_that_are_gone_or_damaged_say_so(shop: Shop) -> None:
    oldest = shop.anna.ok(f"{LINE}/verdicts", limit=3, sort="oldest", pictures="true")
    names = [item["id"] for item in oldest["items"]]
    folder = shop.calibration.with_name("rejects")
    overlays = [path for path in sorted(folder.glob("*.overlay.jpg")) if "-pass." not in path.name][:3]
    overlays[0].unlink()
    overlays[1].write_bytes(overlays[1].read_bytes()[:-300])
    overlays[2].unlink()
    overlays[2].symlink_to("/etc/hostname")
    codes = [shop.anna.get(f"{LINE}/verdicts/{name}/overlay.jpg").json()["error"]["code"] for name in names]
    assert codes == ["gone", "damaged", "outside"]
    shown = shop.anna.ok(f"{LINE}/verdicts/{names[0]}")
    assert shown["pictures"]["overlay"]["reason"]["code"] in {"gone", "not_yet"}
    assert shown["pictures"]["frame"]["url"] is not None


def test_it_needs_little_memory(shop: Shop) -> None:
    assert shop.served.memory_mb() < 150
