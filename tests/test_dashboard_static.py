"""What the browser gets from ``dashboard/static``, looked at without a browser."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from line_rig import REPOSITORY

STATIC = REPOSITORY / "dashboard" / "static"
OURS = sorted(path for path in STATIC.rglob("*.js") if path.parent.name != "vendor")
LANGUAGES = ("de", "ja", "ko")
MOST_BYTES = 150_000
PLURALS = {"en": {"one", "other"}, "de": {"one", "other"}, "ja": {"other"}, "ko": {"other"}}


def catalogue(language: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((STATIC / "locales" / f"{language}.json").read_text())
    return content


def places(text: str | dict[str, str]) -> set[str]:
    """Find what a text leaves to be filled in, in any of its plural forms."""
    forms = [text] if isinstance(text, str) else list(text.values())
    return {place for form in forms for place in re.findall(r"\{(\w+)\}", form)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_the_keys_places_and_plurals_of_its_language(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert list(other) == list(english)
    assert {key: places(text) for key, text in other.items()} == {
        key: places(text) for key, text in english.items()
    }
    for key, text in other.items():
        assert isinstance(text, dict) == isinstance(english[key], dict), key
        if isinstance(text, dict):
            assert set(text) == PLURALS[language], key


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_is_translated(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    same = [
        key
        for key, text in other.items()
        if text == english[key] and len(re.findall(r"[a-z]{3,}", re.sub(r"{.*?}", "", str(text)))) > 2
    ]
    assert same == []


def test_every_key_that_the_page_names_has_a_text_and_every_text_is_named() -> None:
    texts = catalogue("en")
    code = "\n".join(path.read_text() for path in OURS)
    named = set(re.findall(r"\bt\('([a-z_0-9.]+)'", code))
    assert named - texts.keys() == set()
    families = {re.sub(r"\$\{[^}]*\}", "*", family) for family in re.findall(r"\bt\(`([^`]+)`", code)} | {
        f"{kind}.*" for kind in re.findall(r"\bword\('(\w+)'", code)
    }
    patterns = [re.compile(re.escape(family).replace(r"\*", "[^ ]+")) for family in families]
    quoted = set(re.findall(r"'([a-z_0-9]+\.[a-z_0-9.]+)'", code))
    unnamed = [
        key
        for key in texts
        if key not in named and key not in quoted and not any(pattern.fullmatch(key) for pattern in patterns)
    ]
    assert unnamed == []


def test_codes_of_the_server_have_sentences() -> None:
    texts = catalogue("en")
    api = (REPOSITORY / "docs" / "dashboard-api.md").read_text()
    health = re.search(r"Codes \(what to do.*?\n\n", api, re.DOTALL)
    assert health is not None
    causes: list[str] = re.findall(r"`([a-z_]+)`", health[0])
    assert len(causes) > 20
    assert [code for code in causes if f"cause.{code}" not in texts or f"cause.{code}.do" not in texts] == []
    table = re.search(r"\| status \| codes \|.*?\n\n", api, re.DOTALL)
    assert table is not None
    errors = {code for row in table[0].splitlines()[2:] for code in re.findall(r"`([a-z_]+)`", row)} - {
        "host"
    }
    assert [code for code in sorted(errors) if f"error.{code}" not in texts] == []


def test_the_assets_stay_small() -> None:
    sent = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg", ".json")]
    total = sum(len(gzip.compress(path.read_bytes(), 6)) for path in sent)
    assert total <= MOST_BYTES, f"{total} bytes compressed, all languages together"


def test_nothing_is_asked_from_elsewhere_and_nothing_is_inline() -> None:
    for path in [*OURS, STATIC / "index.html", STATIC / "app.css"]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import", text), path
        assert "dangerouslySetInnerHTML" not in text and "innerHTML" not in text, path
    index = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", index)


@pytest.mark.parametrize("name", ["preact", "htm", "uPlot"])
def test_what_others_wrote_comes_with_its_licence(name: str) -> None:
    vendor = STATIC / "vendor"
    assert (vendor / f"{name}.js").is_file()
    assert re.search("MIT|Apache", (vendor / f"{name}.LICENSE").read_text())
    assert name.lower() in (vendor / "README.md").read_text().lower()
    assert Path(vendor / "hooks.js").read_text().count('from"./preact.js"') == 1
