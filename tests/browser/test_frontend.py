"""The shipped workflows and blueprints in ComfyUI's own frontend."""

import re

import numpy as np
import pytest
from comfyui_fluxir.tools.help_images import DOCS, IMAGES, image
from PIL import Image

from ..hosts.workflow_host import PACK, read

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
MAIN = ("01 Restore a photo (works now)", "04 Search for the best result", "07 Restore a photo with UMMF")
BLUEPRINTS = sorted(path.stem for path in (PACK / "subgraphs").glob("*.json"))
PHOTO = "fluxir_dogs_noisy.jpg"


def saved(base, prefix):
    """The newest picture that Save Image wrote under `prefix`."""
    return Image.open(max((base / "output").glob(f"{prefix}_*.png"), key=lambda path: path.stat().st_mtime)).convert("RGB")


def shipped_size(name):
    thumbnail = PACK / "workflows" / f"{name}.jpg"
    return Image.open(thumbnail).size if thumbnail.exists() else "no thumbnail"


def alike(a, b, size=(24, 16)):
    """Correlation of two pictures at a small common size."""
    flat = [np.asarray(image.convert("L").resize(size), float).ravel() for image in (a, b)]
    return np.corrcoef(*flat)[0, 1]


def test_the_template_browser_shows_every_workflow_with_its_thumbnail(frontend):
    cards = frontend.templates()
    assert sorted(card.get_attribute("data-testid").removeprefix("template-workflow-") for card in cards.all()) == WORKFLOWS
    assert {name: frontend.thumbnail(name).size for name in WORKFLOWS} == {name: shipped_size(name) for name in WORKFLOWS}


@pytest.mark.parametrize("name", MAIN)
def test_a_workflow_loads_runs_and_shows_its_result(frontend, base, name):
    frontend.load_template(name)
    assert frontend.unknown_nodes() == [] and frontend.complaints() == []
    shown_at = frontend.run()
    (saver,) = frontend.nodes("SaveImage")
    (prefix,) = (node["widgets_values"][0] for node in read(f"{name}.json")["nodes"] if node["type"] == "SaveImage")
    shown, written = frontend.image(saver), saved(base, prefix)
    assert shown.size == written.size and shown.tobytes() == written.tobytes()
    assert alike(frontend.on_screen(saver), written) > 0.9
    assert frontend.overlaps() == []
    for sampler in frontend.nodes("FluxIRTTSSampler"):
        watch_the_montage(frontend, sampler, shown_at)


def watch_the_montage(frontend, sampler, shown_at):
    """The sampler showed its candidates more than once while it searched, the chosen one in a green frame."""
    assert shown_at.count(sampler) > 1
    sheet = frontend.image(sampler)
    assert max(sheet.size) == 512 and sheet.height > sheet.width  # the best large, and below it the place where they differ
    green = np.abs(np.asarray(sheet, int) - (90, 220, 120)).max(-1) < 40
    assert green.sum() > 100


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_is_found_by_name_runs_and_shows_its_result(frontend, base, name):
    frontend.add_blueprint(name)
    assert frontend.page.evaluate("app.graph.nodes[0].title") == name
    frontend.surround(PHOTO)
    frontend.run()
    restored = frontend.image(frontend.nodes("SaveImage")[0])
    with Image.open(base / "input" / PHOTO) as photo:
        larger = 2 if name == "Upscale" else 1
        assert restored.size == tuple(larger * side for side in photo.size) and alike(restored, photo) > 0.8


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_widget_of_a_blueprint_reaches_the_node_inside(frontend, name):
    frontend.add_blueprint(name)
    frontend.surround(PHOTO)
    values = {"strength": 0.5, "fidelity": 0.25, "seed": 4711, "detail": 0.75, "budget": "balanced", "times_larger": 3}
    shown = frontend.page.evaluate(
        """values => {
          const node = app.graph.nodes.find(node => node.subgraph);
          const own = node.widgets.filter(widget => widget.name in values);
          for (const widget of own) widget.value = values[widget.name];
          return own.map(widget => widget.name);
        }""",
        values,
    )
    blueprint = read(f"{name}.json", "subgraphs")["nodes"][0]
    assert shown == [part["name"] for part in blueprint["inputs"] if "widget" in part]
    sent = frontend.page.evaluate("async () => (await app.graphToPrompt()).output")
    inside = [set(map(str, node["inputs"].values())) for node in sent.values()]
    assert all(any(str(values[widget]) in own for own in inside) for widget in shown)


def test_every_workflow_loads_without_a_node_that_nobody_has(frontend):
    unknown = {}
    for name in WORKFLOWS:
        frontend.load(read(f"{name}.json"), name)
        unknown[name] = frontend.unknown_nodes()
    assert unknown == {name: [] for name in WORKFLOWS}


@pytest.mark.parametrize("view", ["side by side", "split"])
def test_before_and_after_are_seen_in_both_canvases(frontend, canvas, view):
    node = frontend.compare_colors(view)
    frontend.run()
    for _ in range(20):  # the image comes after the run has ended
        frontend.page.wait_for_timeout(500)
        pixels = np.asarray(frontend.area(node), int)
        red, green = ((np.abs(pixels - color).max(-1) < 40).sum() for color in ((255, 0, 0), (0, 255, 0)))
        if min(red, green) > 2000:
            break
    assert min(red, green) > 2000


def test_a_node_that_nobody_has_is_noticed(frontend):
    graph = read(f"{WORKFLOWS[0]}.json")
    graph["nodes"][0]["type"] = "NoSuchNode"
    frontend.load(graph, "unknown")
    assert frontend.unknown_nodes() == ["NoSuchNode"]


def test_a_nodes_help_shows_its_images(frontend):
    frontend.load(read("02 Restore a photo and keep it faithful.json"), "help")
    files = re.findall(r"!\[.+?\]\((.+?)\)", (DOCS / "FluxIRInventedDetail.md").read_text(encoding="utf-8"))
    sizes = [Image.open(DOCS / file).size for file in files]
    assert sizes and [shown.size for shown in frontend.help_images("FluxIRInventedDetail")] == sizes


@pytest.mark.parametrize(("node", "number"), [("FluxIRTileModel", 1), ("FluxIRMatchColor", 2)])
def test_the_image_of_a_node_is_what_the_frontend_draws_now(frontend, node, number):
    drawn, shipped = image(frontend, node, number), Image.open(IMAGES / f"{node}.webp")
    assert np.abs(np.subtract(drawn.size, shipped.size)).max() < 8 and alike(drawn, shipped, size=(96, 80)) > 0.9
