"""What single nodes do in ComfyUI's own frontend: the preset beside a search, node search, and Chinese."""

import json
import re

import pytest
from comfyui_fluxir.tools.help_images import DOCS, IMAGES
from PIL import Image

from ..hosts.workflow_host import PACK, read

WANTED = {"color": 1, "upscale": 5, "denoise": 5, "enhance": 5, "jpeg": 5, "sharpen": 5, "compare quality": 5}
"""What artists type, and among how many of the first a node of ours must be."""
FIRST = {"color": "Color Match"}
FOUND = """text => {
  const pinia = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia;
  return pinia._s.get("nodeDef").nodeSearchService.searchNode(text, [], { limit: 5 })
    .map(node => [node.display_name, node.python_module]);
}"""
OWN_BLUEPRINTS = sorted(path.stem for path in (PACK / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("text", WANTED)
def test_what_artists_type_finds_a_node_of_ours(frontend, text):
    found = frontend.page.evaluate(FOUND, text)
    ours = [
        name in OWN_BLUEPRINTS if module.startswith("blueprint") else module.startswith("custom_nodes.") for name, module in found
    ]
    assert any(ours[: WANTED[text]]), found
    assert text not in FIRST or found[0][0] == FIRST[text], found


PRESET = """() => {
  const node = app.graph.nodes.find(node => node.type === "FluxIRTTSSampler");
  const shown = document.querySelector(`[data-node-id="${node.id}"] [aria-label="preset"]`);
  return [node.widgets.find(widget => widget.name === "preset").disabled === true, shown && shown.disabled];
}"""
DISCONNECT = """() => {
  const node = app.graph.nodes.find(node => node.type === "FluxIRTTSSampler");
  node.disconnectInput(node.inputs.findIndex(input => input.name === "search"));
}"""


def test_the_preset_is_gray_while_a_search_is_connected(frontend, canvas):
    def gray():
        frontend.page.wait_for_timeout(300)
        widget, shown = frontend.page.evaluate(PRESET)
        assert shown == (None if canvas == "classic" else widget)
        return widget

    frontend.load(read("04 Search for the best result.json"), "preset")
    assert not gray()
    frontend.load(read("08 Search of your own - step by step.json"), "own search")
    assert gray()
    frontend.page.evaluate(DISCONNECT)
    assert not gray()


RESULT = ("FluxIRBeforeAndAfter", "SaveImage", "PreviewImage")
MUTED = {
    "FluxIRBudgetPlan": ("FluxIRTTSSampler", "FluxIRDecodePhoto", "FluxIRSearchReportChart", *RESULT),
    "FluxIREvaluateRestoration": RESULT,
}
"""What of a graph the answer needs not."""
SAID = """id => {
  const node = app.graph.getNodeById(id);
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [100 - node.pos[0], 100 - node.pos[1]];
  app.canvas.setDirty(true, true);
  return node.widgets.find(widget => widget.name === "answer").value;
}"""


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("04 Search for the best result", "FluxIRBudgetPlan", r"times a normal result: \d+ model calls, \d+ judged images"),
        ("06 Measure a restoration", "FluxIREvaluateRestoration", r"closeness ↑ +[\d.]+"),
    ],
)
def test_a_node_shows_its_answer_in_words(frontend, canvas, name, kind, answer):
    graph = read(f"{name}.json")
    for node in graph["nodes"]:
        if node["type"] in MUTED[kind]:
            node["mode"] = 2
    frontend.load(graph, kind)
    frontend.run()
    node = frontend.nodes(kind)[-1]
    frontend.page.wait_for_timeout(1000)
    said = frontend.page.evaluate(SAID, node)
    frontend.page.wait_for_timeout(500)
    (found,) = re.findall(answer, said)
    assert "|" not in said and "{" not in said
    (shown,) = (box for box in frontend.page.locator("textarea").all() if box.input_value() == said)
    assert shown.is_visible() and found in said
    frontend.fit()
    assert frontend.overlaps(canvas) == []


@pytest.mark.usefixtures("in_chinese")
def test_a_node_is_shown_in_the_frontends_language(frontend):
    texts = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["FluxIRTTSSampler"]
    frontend.load(read("04 Search for the best result.json"), "chinese")
    (sampler,) = frontend.nodes("FluxIRTTSSampler")
    node = frontend.page.locator(f"[data-node-id='{sampler}']")
    node.get_by_text(texts["display_name"], exact=True).wait_for()
    names = {part["name"] for part in texts["inputs"].values()}
    names |= {part["name"] for part in texts["outputs"].values()}
    assert names <= set(node.inner_text().splitlines())
    assert frontend.page.evaluate("LiteGraph.registered_node_types.FluxIRDistilledSigmas.category") == "FluxIR/少步采样"


@pytest.mark.usefixtures("in_chinese")
def test_the_help_is_in_chinese_with_its_image(frontend):
    frontend.load(read("01 Restore a photo (works now).json"), "help")
    shown = frontend.help("FluxIRTileModel")
    page = (DOCS / "FluxIRTileModel" / "zh.md").read_text(encoding="utf-8")
    text = shown.inner_text()
    for line in page.splitlines():
        if line.startswith(("# ", "## ")):
            assert line.lstrip("# ") in text
    width = shown.locator("img").first.evaluate("img => img.decode().then(() => img.naturalWidth)")
    assert width == Image.open(IMAGES / "FluxIRTileModel.webp").width


@pytest.mark.usefixtures("in_chinese")
def test_the_browser_draws_chinese_and_no_boxes(frontend):
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*/zh.md"))
    letters = sorted({letter for letter in pages if "\u4e00" <= letter <= "\u9fff"})
    (box,) = frontend.drawn("\U000fffff")
    drawn = frontend.drawn("".join(letters))
    assert len(letters) > 300 and box not in drawn and len(set(drawn)) == len(letters) and all(map(any, drawn))
