"""The documentation holds together: links lead somewhere, README is one page, and says nothing that was not measured."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NODES = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
HIDDEN = {".git", ".venv", ".cache", ".pytest_cache", "output", "build"}
PAGES = sorted(page for page in ROOT.rglob("*.md") if not HIDDEN & set(page.relative_to(ROOT).parts))

CODE = r"```.*?```|^(?: {4}[^\n]*\n)+"
LINK = re.compile(r"\]\(([^)\s]+)\)")

NOT_MEASURED = {
    "0.16.3", "0.30.0", "3.10",  # versions: ComfyUI, Python
    "3.5",  # SD3.5
    "23 MB", "24 GB", "12 GB", "6 GB", "8 GB", "16 GB",  # sizes: files, disk, download, cards
}  # fmt: skip
FIGURE = re.compile(r"\d+(?:\.\d+)*\s?(?:dB|GB|MB|%|s\b|ms\b|seconds|minutes|hours|times|x\b)|\d+\.\d+(?:\.\d+)*")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def prose(text):
    """`text` without blocks of code and the addresses of links."""
    return LINK.sub("]", re.sub(CODE, "", text, flags=re.S | re.M))


def anchors(text):
    """The addresses that GitHub gives the headings of `text`."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", LINK.sub("]", heading).lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    """The relative links of the file `page` that lead to no file, or to no heading of it."""
    for link in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        folder = (
            page.parent.parent if page.name == "zh.md" else page.parent
        )  # ComfyUI's frontend reads a language's page from there
        target = (folder / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_broken(page):
    assert not list(broken_links(page))


def test_the_link_test_sees_broken_links(tmp_path):
    (tmp_path / "there.md").write_text("# One: `two` & three\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#one-two--three) [c](there.md#four) [d](gone.md) [e](https://e.org) [f](#no)\n# Yes\n",
        encoding="utf-8",
    )
    assert list(broken_links(page)) == ["there.md#four", "gone.md", "#no"]


def test_every_page_of_the_docs_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            paths = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if ":" not in link)
            waiting += [(page.parent / path).resolve() for path in paths if path]
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= seen


def test_the_readme_is_one_page():
    assert len(re.findall(r"\S*\w\S*", README)) <= 1000


def test_the_readmes_second_sentence_says_what_is_missing_and_what_to_use_instead():
    second = re.split(r"(?<=\.) ", " ".join(README.split("\n\n")[1].split()))[1]
    for told in ("tiny model", "no published adapter for FLUX.1-dev", "search sampler", "Tile Model", "OminiControl", "Kontext"):
        assert told in second


def test_every_figure_in_the_readme_was_measured():
    results = " ".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "results").glob("*.md"))
    figures = {" ".join(figure.split()) for figure in FIGURE.findall(prose(README))} - NOT_MEASURED
    assert figures and not {figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", results)}


def test_the_figures_that_were_not_measured_are_still_in_the_readme():
    assert set(FIGURE.findall(prose(README))) >= NOT_MEASURED


@pytest.mark.parametrize("example", re.findall(r"```python\n(.+?)```", README, re.S))
def test_the_readmes_example_runs(example):
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    check = """
from comfyui_fluxir.fluxir_core import euler
baseline = decode(euler(velocity, noise, sigmas))
assert score(brighter)["brightness"] > score(baseline)["brightness"]
"""
    code = f"import torch\ntorch.manual_seed(0)\n{example}{check}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_every_workflow_is_described_and_no_other():
    listed = re.findall(r"^\| \*(.+?)\* \|", (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_workflows_that_pages_name_exist():
    existing = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    for page in PAGES:
        named = set(re.findall(r"(?<!\*)\*(\d\d [^*]+)\*(?!\*)", page.read_text(encoding="utf-8")))
        assert named <= existing, name_of(page)


def test_every_node_is_listed_by_its_name_with_its_help_page():
    page = (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")
    listed = re.findall(r"\[([^]]+)\]\(\.\./web/docs/(\w+)\.md\)", page)
    assert sorted(listed) == sorted((node["display_name"], node_id) for node_id, node in NODES.items())


ROOMS = r"`((?:fluxir_core|nodes|training|tests|tools|demo|docs|web|workflows|subgraphs|locales|models/miniature)/[\w./-]*)`"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_files_that_pages_name_exist(page):
    named = re.findall(ROOMS, page.read_text(encoding="utf-8"))
    assert not [path for path in named if not (ROOT / path).exists()]
