"""The pack's layout: which part may import which, and no circles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("fluxir_core", "nodes", "training", "demo", "tools")
COMFY = {"comfy", "comfy_api", "folder_paths"}
FORBIDDEN = {
    "fluxir_core": {*COMFY, "diffusers", "nodes", "training", "demo", "tools"},
    "nodes": {"diffusers", "training", "demo", "tools"},
    "training": {*COMFY, "nodes", "demo", "tools"},
    "demo": {*COMFY, "nodes", "training", "tools"},
    "tools": {*COMFY, "nodes", "training"},
}
LEVELS = (
    "image",
    "degrade",
    "flux",
    "flow",
    "execution",
    "adapter",
    "ummf",
    "lora",
    "lucidflux",
    "verify",
    "searches",
    "data",
    "caption",
)
"""The core's folders and files, from the ground up: each imports only from those before it."""


def modules(root):
    """{path below `root`, with slashes and without suffix: syntax tree} of the pack's files, packages by their folder."""
    paths = (path for part in PARTS for path in sorted((root / part).rglob("*.py")))
    return {
        path.relative_to(root).as_posix().removesuffix(".py").removesuffix("/__init__"): (
            path.name == "__init__.py",
            ast.parse(path.read_text(encoding="utf-8")),
        )
        for path in paths
    }


def imports(name, package, tree, known):
    """What the module `name` imports anywhere in it: modules of `known` by their names, others by their first name."""
    folder = name.split("/") if package else name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = [*folder[: len(folder) - node.level + 1], *(node.module or "").split(".")]
            base = "/".join(filter(None, base))
            for alias in node.names:
                inner = f"{base}/{alias.name}".lstrip("/")
                yield inner if inner in known or not base else base


def graph(root):
    """{module: set of what it imports} of the pack at `root`."""
    found = modules(root)
    return {name: set(imports(name, *module, found)) for name, module in found.items()}


@pytest.fixture(scope="module")
def arrows():
    return graph(ROOT)


def wrong_parts(arrows, part):
    names = [name for name in arrows if name.split("/")[0] == part]
    assert names
    return {(name, to) for name in names for to in arrows[name] if to.split("/")[0] in FORBIDDEN[part]}


def wrong_levels(arrows):
    """Arrows of the core from a level to one above it."""
    places = {level: place for place, level in enumerate(LEVELS)}
    own = [name for name in arrows if name.startswith("fluxir_core/")]
    assert {name.split("/")[1] for name in own} <= set(LEVELS), "a new folder of the core needs its place in LEVELS"
    return {
        (name, to)
        for name in own
        for to in arrows[name]
        if to.startswith("fluxir_core/") and places[to.split("/")[1]] > places[name.split("/")[1]]
    }


def circle(arrows):
    """A circle of imports between files, or None."""
    inner = {name: {to for to in reached if to in arrows and to != name} for name, reached in arrows.items()}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("part", PARTS)
def test_dependencies_point_one_way(arrows, part):
    assert not wrong_parts(arrows, part)


def test_the_cores_folders_import_only_what_is_below_them(arrows):
    assert not wrong_levels(arrows)


def test_no_files_import_each_other_in_a_circle(arrows):
    assert circle(arrows) is None


def test_the_arrow_tests_see_wrong_arrows(tmp_path):
    files = {
        "fluxir_core/flow/bad.py": "import comfy.sd\nfrom ...training import host\nfrom ..searches import search\n",
        "fluxir_core/searches/search.py": "def f():\n    from ..flow.bad import g\n",
        "training/host.py": "from .. import nodes\n",
        "nodes/a.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = graph(tmp_path)
    assert wrong_parts(found, "fluxir_core") == {("fluxir_core/flow/bad", "comfy"), ("fluxir_core/flow/bad", "training/host")}
    assert wrong_parts(found, "training") == {("training/host", "nodes")}
    assert wrong_levels(found) == {("fluxir_core/flow/bad", "fluxir_core/searches/search")}
    assert set(circle(found)) == {"fluxir_core/flow/bad", "fluxir_core/searches/search"}
