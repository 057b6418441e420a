import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from line_rig import COMMANDS, REPOSITORY

from daemon.config import Config, load_config
from foundation.errors import InputError
from foundation.yaml_file import read_yaml, yaml_text
from pictures.frames import Roi

WHOLE = """\
line: line3
engine: flange.engine
calibration: flange.calibration.yaml
publish: tcp://127.0.0.1:5560
cameras:
  top:
    source: parts
    roi: {x: 1, y: 2, width: 30, height: 40}
    fps: 25
archive:
  folder: rejects
"""


def refused(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "line3.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_a_whole_config_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "line3.yaml"
    path.write_text(WHOLE)
    config = load_config(path)
    assert config.engine == tmp_path / "flange.engine"
    assert config.archive is not None
    assert config.archive.folder == tmp_path / "rejects"
    camera = config.cameras["top"]
    assert camera.source == str(tmp_path / "parts")
    assert camera.roi == Roi(1, 2, 30, 40)


def test_verdicts_name_pictures_for_those_who_work_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "line3.yaml").write_text(WHOLE)
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("line3.yaml"))
    assert config.archive is not None
    assert config.archive.folder == tmp_path / "rejects"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "line: line3",
            "line: line 3",
            "line3.yaml:1: line: found 'line 3', expected a name of",
        ),
        ("line: line3\n", "", "line3.yaml:1: line: missing; expected it here"),
        ("line: line3\n", "line: line3\ntrusted_keys:\n", "trusted_keys: found nothing, expected a value;"),
        ("line: line3\n", "line: line3\ngolden:\n", "line3.yaml:2: golden: found nothing, expected a value;"),
        ("line: line3\n", "line: line3\ndrift: null\n", "line3.yaml:2: drift: found None, expected a value;"),
        ("publish: tcp://127.0.0.1:5560", "publish: tcp://0.0.0.0:5560", "line3.yaml:4: publish: found"),
        ("fps: 25", "fsp: 25", "line3.yaml:9: cameras.top.fsp: unknown key; did you mean fps?"),
        ("fps: 25", "fps: fast", "line3.yaml:9: cameras.top.fps: found 'fast', expected a valid number"),
        (
            "fps: 25",
            "fps: 1e-300",
            "line3.yaml:9: cameras.top.fps: found 1e-300, expected greater than or equal to 0.0001",
        ),
        (
            "fps: 25",
            "fps: -1",
            "line3.yaml:9: cameras.top.fps: found -1, expected greater than or equal to 0.0001",
        ),
        ("fps: 25", "fps: 25\n    fps: 26", "line3.yaml:10: fps: is given a second time here"),
        ("fps: 25", "cores: 1", "line3.yaml:9: cameras.top.cores: found 1, expected a list"),
        ("line: line3", "cores: [-1]\nline: line3", "line3.yaml:1: cores.0: found -1, expected greater than"),
        ("line: line3", "cores: []\nline: line3", "line3.yaml:1: cores: found nothing in it, expected"),
        ("    source: parts\n", "", "line3.yaml:6: cameras.top.source: missing"),
        ("width: 30", "widht: 30", "line3.yaml:8: cameras.top.roi"),
        ("width: 30", "width: [", "line3.yaml:"),
        ("  top:", "  to/p:", "line3.yaml:6: cameras.to/p: found 'to/p', expected a name"),
        ("folder: rejects", "folder: 7", "line3.yaml:11: archive.folder: found 7"),
        ("archive:", "archives:", "line3.yaml:10: archives: unknown key; did you mean archive?"),
    ],
)
def test_each_mistake_is_named_by_file_line_key_found_and_expected(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in WHOLE
    assert expected in refused(tmp_path, WHOLE.replace(old, new))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected the YAML config of a line"),
        ("- a\n- b\n", "expected the YAML config of a line"),
        ("line: !!python/object/apply:os.system [id]\n", "not YAML"),
        (b"line: \xff", "not YAML"),
        ("x: " + "a" * 1_000_001, "is larger than"),
        ("cameras: 2026-99-99\n", "line3.yaml"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fps: 25", "fps: 0500", "cameras.top.fps: found 0500, which YAML may read as 320"),
        ("fps: 25", "fps: 1:30", "cameras.top.fps: found 1:30, which YAML may read as 90"),
        ("fps: 25", "fps: 0x1F", "cameras.top.fps: found 0x1F, which YAML may read as 31"),
        ("fps: 25", "waiting: 0o17", "cameras.top.waiting: found 0o17; expected plain decimal digits"),
        ("fps: 25", "waiting: 08", "cameras.top.waiting: found 08; expected plain decimal digits"),
        ("fps: 25", "waiting: 1_000", "cameras.top.waiting: found 1_000, which YAML may read as 1000"),
        ("fps: 25", "fps: .inf", "cameras.top.fps: found inf, expected"),
        ("fps: 25", "stalled_after_s: .inf", "stalled_after_s: found inf, expected a finite number"),
        ("fps: 25", "stalled_after_s: 1e999", "stalled_after_s: found inf, expected a finite number"),
        ("fps: 25", "stalled_after_s: .nan", "stalled_after_s: found nan, expected"),
        ("fps: 25", "stalled_after_s: inf", "stalled_after_s: found 'inf', expected a valid number"),
        ("fps: 25", "fps: '25'", "cameras.top.fps: found '25', expected a valid number"),
        ("fps: 25", "fps: true", "cameras.top.fps: found True, expected a valid number"),
        ("fps: 25", "waiting: 8.0", "cameras.top.waiting: found 8.0, expected a valid integer"),
        ("fps: 25", "loop: yes", "cameras.top.loop: found 'yes', expected true or false"),
        ("fps: 25", "loop: 1", "cameras.top.loop: found 1, expected true or false"),
        ("line: line3", "line: 1e3", "line: found 1000.0, expected a text; write it in quotes"),
        ("line: line3", "line: 0500", "line: found 0500, which YAML may read as 320"),
        ("  top:", "  1:", "cameras.1: expected a text as key; write it in quotes"),
        ("  top:", "  010:", "cameras.010: found 010, which YAML may read as 8"),
        ("x: 1,", "x: -1,", "cameras.top.roi.x: found -1, expected"),
        ("fps: 25", "present:", "cameras.top.present: found nothing, expected a value; or leave the key out"),
        ("fps: 25", "trigger: # later", "cameras.top.trigger: found nothing, expected a value"),
        ("width: 30", "width: 0", "cameras.top.roi.width: found 0, expected"),
        ("{x: 1, y: 2, width: 30, height: 40}", "1,2,3,4", "roi: found '1,2,3,4', expected {x: …, y: …"),
    ],
)
def test_no_number_is_another_than_it_looks_like(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in refused(tmp_path, WHOLE.replace(old, new))


def test_words_and_dates_are_the_texts_that_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "line3.yaml"
    for name in ("on", "No", "y", "2026-01-31", "1e3x"):
        text = WHOLE.replace("line: line3", f"line: {name}")
        path.write_text(text.replace("fps: 25", f"features: {{TriggerMode: {name}, Gain: 1e1}}"))
        config = load_config(path)
        assert config.line == name
        assert config.cameras["top"].features == {"TriggerMode": name, "Gain": 10.0}


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    | st.from_regex(r"[-+0-9._:eExobn]{1,8}", fullmatch=True)
)
def test_what_is_written_is_read_as_the_same(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    content = {"text": text, "float": 1e-5, "whole": 500, "none": None, "yes": True}
    path.write_bytes(yaml_text(content).encode())
    assert read_yaml(path, "keys").content == content


KEYS = st.sampled_from([*Config.model_fields, "top", "source", "roi", "x", "tiles", "size", "overlap"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
        max_leaves=12,
    )
)
def test_any_yaml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        load_config(path)
    except InputError as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(WHOLE.encode() + data)
    try:
        load_config(path)
    except InputError as error:
        assert "\n" not in str(error)


def accepts(schema: dict[str, Any], part: dict[str, Any], found: object) -> bool:
    """Judge the little that is needed here of JSON Schema: types, keys and choices."""
    if "$ref" in part:
        return accepts(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], found)
    if "anyOf" in part:
        return any(accepts(schema, choice, found) for choice in part["anyOf"])
    if isinstance(found, dict) and part.get("type") == "object":
        known, others = part.get("properties", {}), part.get("additionalProperties", True)
        return set(part.get("required", ())) <= found.keys() and all(
            accepts(schema, known[key], value)
            if key in known
            else accepts(schema, others, value)
            if isinstance(others, dict)
            else bool(others)
            for key, value in found.items()
        )
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    return isinstance(found, kinds.get(part.get("type", ""), ()))


@pytest.mark.parametrize(
    ("kind", "file"), [("config", "line.schema.json"), ("calibration", "calibration.schema.json")]
)
def test_the_schemas_for_editors_are_those_of_the_models(kind: str, file: str) -> None:
    """After a change of a model: ``inspectd --schema config > configs/line.schema.json``, and likewise."""
    printed = subprocess.run(
        [COMMANDS / "inspectd", "--schema", kind], capture_output=True, text=True, check=True
    ).stdout
    assert (REPOSITORY / "configs" / file).read_text() == printed


@pytest.mark.parametrize("name", ["line3.yaml", "demo.yaml"])
def test_the_examples_keep_the_schema_that_they_name(name: str) -> None:
    text = (REPOSITORY / "configs" / name).read_text()
    assert text.startswith("# yaml-language-server: $schema=line.schema.json\n")
    schema = json.loads((REPOSITORY / "configs/line.schema.json").read_text())
    content = read_yaml(REPOSITORY / "configs" / name, "a config").content
    content["cameras"]["top"]["roi"] = {"x": 0, "y": 0, "width": 5, "height": 5}
    assert accepts(schema, schema, content)
    assert not accepts(schema, schema, content | {"fsp": 3})
