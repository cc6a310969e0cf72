"""Every node's help page in web/docs, against the node as the real ComfyUI knows it."""

import asyncio
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"


@pytest.fixture(scope="module")
def schemas(comfy):
    """{node_id: Schema} of every node of the pack."""
    import comfyui_fluxir

    async def listed():
        extension = await comfyui_fluxir.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    nodes = asyncio.run(listed())
    return {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}


def shown(part):
    """What an artist sees of an input: itself, or the slots of one that grows, which ComfyUI shows in its place."""
    template = getattr(part, "template", None)
    return template.get_all() if template else [part]


def test_pages_and_nodes_are_the_same(schemas):
    assert {page.stem for page in DOCS.glob("*.md")} == set(schemas)


def test_every_page_is_titled_with_the_nodes_name(schemas):
    titles = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8").splitlines()[0] for name in schemas}
    assert titles == {name: f"# {schema.display_name}" for name, schema in schemas.items()}


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
        if name != "BudgetPlan" and getattr(part, "options", None)
        for option in part.options
        if f"`{option}`" not in (DOCS / f"{name}.md").read_text(encoding="utf-8")
    ]
    assert not missing


def test_every_input_and_output_has_a_tooltip(schemas):
    missing = [
        f"{name}: {part.id or part.display_name}"
        for name, schema in schemas.items()
        for part in [*(slot for own in schema.inputs for slot in shown(own)), *schema.outputs]
        if not (part.tooltip or "").strip()
    ]
    assert not missing
