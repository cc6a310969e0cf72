"""What artists read on the nodes, their help pages and the graphs: names of our own, plain words."""

import ast
import json
import re

import pytest
from comfyui_fluxir.demo.environment import NEWEST

from .workflow_host import PACK

# What a reader of no paper cannot know, each with its plain word beside it in the list of words that the pack keeps to.
JARGON = (
    r"guards?|guarded|finalists?|lineages?|mutants?|contests?|kernels?|ou|cps|eta|flow_grpo|zero_drift|relabel|renoise|nfe"
    r"|rank sum|z-scores?|shards?|verifications?|plain sample|pictures?|spoil|spoils|spoilt|dearer"
)
# TTS means speech everywhere else in ComfyUI. Files in a pair are called .hq.png and .lq.png.
UNEXPLAINED = re.compile(
    rf"(?<![a-z])(?:{JARGON})(?![a-z])|(?<![a-z.])lq(?![a-z])|(?<!FluxIR)TTS(?! Sampler(?: Select)? \(test-time search\))", re.I
)
BOLD = re.compile(r"\*\*(.+?)\*\*")


def graphs():
    """(file's name without its ending, graph) of every workflow and blueprint, and of the graphs inside them."""
    for folder in ("workflows", "subgraphs"):
        for path in sorted((PACK / folder).glob("*.json")):
            graph = json.loads(path.read_text(encoding="utf-8"))
            for part in (graph, *graph.get("definitions", {}).get("subgraphs", ())):
                yield path.stem, part


def texts_of_graphs():
    for name, graph in graphs():
        yield name, name
        yield f"{name}: name", graph.get("name", "")
        yield f"{name}: description", graph.get("description", "")
        for group in graph.get("groups", ()):
            yield f"{name}: group", group["title"]
        for node in graph["nodes"]:
            yield f"{name}: title of {node['id']}", node.get("title") or ""
            for value in node.get("widgets_values") or ():
                yield f"{name}: widget of {node['id']}", value if isinstance(value, str) else ""


def texts_of_nodes(schemas):
    for name, schema in schemas.items():
        yield f"{name}: name", schema.display_name
        yield f"{name}: description", schema.description
        yield f"{name}: category", schema.category
        for part in (*schema.inputs, *schema.outputs):
            for text in (part.id, part.display_name, part.tooltip, *(getattr(part, "options", None) or ())):
                yield f"{name}: {part.id or part.display_name}", text or ""


def texts_of_errors():
    """The constant parts of every message that the nodes raise, or that what they call raises for them."""
    core = ("adapter", "degrade", "execution", "image", "lora", "ummf", "verify")
    folders = (PACK / "nodes", *(PACK / "fluxir_core" / name for name in core))
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                for part in ast.walk(node.exc):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield f"{path.name}, line {part.lineno}", part.value


def pages():
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((PACK / "web" / "docs").glob("*.md"))}


@pytest.fixture(scope="module")
def texts(schemas):
    """[(where, what is read there)]."""
    return [*texts_of_nodes(schemas), *texts_of_graphs(), *texts_of_errors(), *pages().items()]


def found(pattern, texts):
    return {(where, match[0]) for where, text in texts for match in pattern.finditer(text)}


def test_every_node_id_and_type_of_our_own_is_told_from_other_packs(schemas):
    assert schemas and [name for name in schemas if not name.startswith("FluxIR")] == []
    types = {part.io_type for schema in schemas.values() for part in schema.outputs}
    own = {kind for kind in types if "FLUXIR" in kind}
    assert own >= {"FLUXIR_ADAPTER", "FLUXIR_VERIFIER", "FLUXIR_SEARCH"} and all(kind.startswith("FLUXIR_") for kind in own)


def test_no_word_needs_a_paper_to_be_understood(texts):
    assert found(UNEXPLAINED, texts) == set()


@pytest.mark.parametrize("text", ["its guard", "NFE", "nfe_least", "an LQ latent", "the TTS Sampler", "`ou`", "two mutants"])
def test_jargon_is_seen(text):
    assert UNEXPLAINED.search(text)


@pytest.mark.parametrize("text", ["safeguard", "<key>.lq.png", "TTS Sampler (test-time search)", "grep", "they", "honey"])
def test_what_is_plain_passes(text):
    assert not UNEXPLAINED.search(text)


OTHER_PACKS = {"Unet Loader (GGUF)"}
"""Nodes of ComfyUI-GGUF, which the notes name for cards with little memory."""


@pytest.mark.parametrize("server", [NEWEST], indirect=True)
def test_what_stands_in_bold_is_a_node_under_its_present_name(server):
    known = {node["display_name"] or name for name, node in server.get("/object_info").items()}
    notes = {
        name: node["widgets_values"][0] for name, graph in graphs() for node in graph["nodes"] if node["type"] == "MarkdownNote"
    }
    named = {(where, name) for where, text in (pages() | notes).items() for name in BOLD.findall(text)}
    known |= OTHER_PACKS
    assert sorted({(where, name) for where, name in named if name not in known and not name.endswith(".")}) == []
