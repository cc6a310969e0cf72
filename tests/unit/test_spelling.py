"""American spelling in everything that is written here: code, comments, documents, graphs, texts on nodes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    ".github",
    "demo",
    "docs",
    "fluxir_core",
    "locales/en",
    "models",
    "nodes",
    "subgraphs",
    "tests",
    "tools",
    "training",
    "web",
)
ENDINGS = {".js", ".json", ".md", ".py", ".toml", ".yaml", ".yml"}
BRITISH = (
    r"colour\w*|grey\w*|neighbour\w*|behaviour\w*|favour\w*|honour\w*|centre[sd]?|metres?|licence[sd]?"
    r"|artefacts?|learnt|spelt|burnt|towards|cancell(?:ed|ing)|(?:label|model|travel|signal)l(?:ed|ing)|(?:ana|cata)lyse[sd]?"
    r"|\w*(?:recogn|normal|optim|quant|poster|minim|maxim|organ|summar|general|initial|regular|visual|util|synchron|random)"
    r"is(?:e[drs]?|ers|ing|ations?)"
)
MISSPELT = re.compile(rf"(?<![a-z])(?:{BRITISH})(?![a-z])", re.I)
FILE_NAMES = re.compile(r"usr/share/\S+")
"""Packages' own."""


def sources():
    """Every text file but this one and the weights' folders, by path."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*ROOT.glob("*"), *(ROOT / "workflows").glob("*"), *inside]):
        if path.is_file() and path.suffix in ENDINGS and path != Path(__file__).resolve():
            yield path


def test_the_spelling_is_american():
    files = list(sources())
    assert len(files) > 400
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        for match in MISSPELT.finditer(FILE_NAMES.sub("", path.read_text(encoding="utf-8")))
    }
    assert found == set()


@pytest.mark.parametrize(
    "text", ["colours", "colourful", "Grey", "normalised", "a licence", "neighbouring", "greyscale", "optimiser", "labelled"]
)
def test_british_spelling_is_seen(text):
    assert MISSPELT.search(text)


@pytest.mark.parametrize("text", ["color", "a colorful scene", "generalist", "modeling", "they", "honey", "noise", "parameters"])
def test_american_spelling_passes(text):
    assert not MISSPELT.search(text)
