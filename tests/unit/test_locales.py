"""The translations in `locales`, as files: another language says what the English says, in its own words."""

import json
import re
from pathlib import Path

import pytest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
OWN_SCRIPT = {"zh": re.compile(r"[\u4e00-\u9fff]")}
KEPT = {"FluxIR", "Latent", "Sigmas", "VAE"}  # names that ComfyUI's own translation keeps too
# The frontend reads names and descriptions as messages with a syntax, tooltips as they are.
SYNTAX = re.compile(r"[@{}|%]")
# Code, file names, numbers and the choices of a combo: what is typed or found as it stands.
LITERAL = re.compile(r"`[^`]+`|[\w+-]*(?:[\d/_]|\.(?=\w))[\w./+-]*\w|\d", re.ASCII)

pytestmark = pytest.mark.parametrize("language", sorted(OWN_SCRIPT))


def texts(language):
    """{(file, *keys): text} of a language."""
    return {
        (path.name, *keys): text
        for path in (LOCALES / language).glob("*.json")
        for keys, text in leaves(json.loads(path.read_text(encoding="utf-8")))
    }


def leaves(content, keys=()):
    for key, value in content.items():
        yield from leaves(value, (*keys, key)) if isinstance(value, dict) else [((*keys, key), value)]


@pytest.fixture
def english():
    return texts("en")


@pytest.fixture
def translated(language):
    return texts(language)


def test_a_translation_has_the_english_texts_and_no_others(english, translated):
    assert set(translated) == set(english)


def test_every_text_is_translated(language, translated):
    same = {keys: text for keys, text in translated.items() if not OWN_SCRIPT[language].search(text) and text not in KEPT}
    assert same == {}


def test_what_is_typed_as_it_stands_is_not_translated(english, translated):
    inputs = {keys[3] for keys in english if "inputs" in keys}  # these have names of their own in each language
    changed = {
        keys: text
        for keys, text in translated.items()
        if keys[-1] in ("description", "tooltip")
        and set(LITERAL.findall(text)) - inputs != set(LITERAL.findall(english[keys])) - inputs
    }
    assert changed == {}


def test_one_word_for_one_thing(english, translated):
    """An input that two nodes have with the same English name and tooltip reads the same in both."""
    read = {}
    for keys, text in translated.items():
        if "inputs" in keys and keys[-1] == "tooltip":
            name = (*keys[:-1], "name")
            read.setdefault((english[name], english[keys]), set()).add((translated[name], text))
    assert [variants for variants in read.values() if len(variants) > 1] == []


def test_no_name_or_description_reads_as_the_frontends_message_syntax(english, translated):
    messages = {keys: text for keys, text in [*english.items(), *translated.items()] if keys[-1] != "tooltip"}
    assert {keys: text for keys, text in messages.items() if SYNTAX.search(text)} == {}
