"""Every node's help page in web/docs, against the node as the real ComfyUI knows it."""

import json
import re

from comfyui_fluxir.tools.help_images import COMPANY, DOCS, IMAGES, richest_workflow
from comfyui_fluxir.tools.locales import LOCALES
from PIL import Image

CORE = {"加载LoRA", "Flux引导", "CLIP文本编码"}
"""ComfyUI's own nodes that Chinese pages name."""
IMAGE = re.compile(r"!\[(.*?)\]\((.*?)\)")


def shown(part):
    """What an artist sees of an input: itself, or the slots of one that grows, which ComfyUI shows in its place."""
    template = getattr(part, "template", None)
    return template.get_all() if template else [part]


def test_pages_and_nodes_are_the_same(schemas):
    assert {page.stem for page in DOCS.glob("*.md")} == set(schemas)


def test_every_page_is_titled_with_the_nodes_name(schemas):
    titles = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8").splitlines()[0] for name in schemas}
    assert titles == {name: f"# {schema.display_name}" for name, schema in schemas.items()}


def test_every_page_shows_its_node_and_says_in_words_what_is_shown(schemas):
    for name in schemas:
        shown = {file: text for text, file in IMAGE.findall((DOCS / f"{name}.md").read_text(encoding="utf-8"))}
        assert f"images/{name}.webp" in shown and all(len(text) > 20 for text in shown.values()), name
        for file in shown:
            with Image.open(DOCS / file) as image:
                image.load()
                assert image.format == "WEBP" and min(image.size) > 100 and max(image.size) < 1000, file


def test_every_page_has_a_chinese_one_with_the_same_title_image_and_names(schemas):
    chinese = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert {page.parent.name for page in DOCS.glob("*/zh.md")} == set(schemas)
    for name, schema in schemas.items():
        page = (DOCS / name / "zh.md").read_text(encoding="utf-8")
        assert page.splitlines()[0] == f"# {chinese[name]['display_name']}"
        assert f"](images/{name}.webp)" in page and "\n## 提示\n\n- " in page, name
        told = set(re.findall(r"^\| `(\w+)`", page, re.M))
        assert told == {part.id for part in schema.inputs} | {part.display_name or part.id for part in schema.outputs}, name


def test_a_chinese_page_names_other_nodes_as_the_frontend_does():
    chinese = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    names = {node["display_name"] for node in chinese.values()} | CORE
    for page in DOCS.glob("*/zh.md"):
        assert set(re.findall(r"\*\*(.+?)\*\*", page.read_text(encoding="utf-8"))) <= names, page.parent.name


def test_no_image_is_left_over_and_all_are_small():
    used = {file for page in DOCS.glob("*.md") for _, file in IMAGE.findall(page.read_text(encoding="utf-8"))}
    sizes = {f"images/{path.name}": path.stat().st_size for path in IMAGES.iterdir()}
    assert set(sizes) == used and max(sizes.values()) < 30_000 and sum(sizes.values()) < 1_200_000


def test_an_image_of_every_node_can_be_made_again(schemas):
    for name in schemas:
        assert name in COMPANY or richest_workflow(name).exists()


def test_every_input_and_output_is_explained_on_its_page(schemas):
    missing = [
        f"{name}: {id}"
        for name, schema in schemas.items()
        for id in [part.id for part in schema.inputs] + [part.id or part.display_name for part in schema.outputs]
        if f"`{id}`" not in (DOCS / f"{name}.md").read_text(encoding="utf-8")
    ]
    assert not missing


def test_every_choice_of_a_search_is_explained_on_its_page(schemas):
    """Combos of files are left out: their choices are the user's own."""
    missing = [
        f"{name}: {part.id} {option}"
        for name, schema in schemas.items()
        if schema.category.startswith("FluxIR/search") and not schema.category.endswith("verifiers")
        for part in schema.inputs
        if name != "FluxIRBudgetPlan" and getattr(part, "options", None)
        for option in part.options
        if f"`{option}`" not in (DOCS / f"{name}.md").read_text(encoding="utf-8")
    ]
    assert not missing


def test_every_combo_begins_with_one_of_its_choices(schemas):
    for name, schema in schemas.items():
        for part in schema.inputs:
            if getattr(part, "options", None) and part.default is not None:
                assert part.default in part.options, f"{name}: {part.id} {part.default}"


def test_every_input_and_output_has_a_tooltip(schemas):
    missing = [
        f"{name}: {part.id or part.display_name}"
        for name, schema in schemas.items()
        for part in [*(slot for own in schema.inputs for slot in shown(own)), *schema.outputs]
        if not (part.tooltip or "").strip()
    ]
    assert not missing
