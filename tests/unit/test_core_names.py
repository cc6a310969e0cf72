"""Every name of ComfyUI that the pack uses is in the oldest and in the newest supported version, or is guarded."""

import ast
import functools
from pathlib import Path

import pytest
from comfyui_fluxir.demo.environment import CACHE, NEWEST, OLDEST

ROOT = Path(__file__).resolve().parents[2]
CORE = {
    "app",
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}
SOURCES = [ROOT / "__init__.py", *sorted((ROOT / "nodes").glob("*.py"))]
GUARDS = {"ImportError", "ModuleNotFoundError", "AttributeError", "Exception"}


def used_names(tree):
    """{dotted name of core: line} that a module uses without a guard: what it imports, and attributes of what it imported."""
    modules, found = {}, {}
    for node in _unguarded(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in CORE:
                    bound = alias.asname or alias.name.split(".")[0]
                    modules[bound] = alias.name if alias.asname else bound
                    found[alias.name] = node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in CORE:
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found[f"{node.module}.{alias.name}"] = node.lineno
    for node in _unguarded(tree):
        chain = _chain(node)
        if chain and chain[0] in modules:
            found.setdefault(".".join([modules[chain[0]], *chain[1:]]), node.lineno)
    return found


def _unguarded(node):
    """The nodes of a syntax tree, but for what stands in the `try` of a guard."""
    yield node
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Try) and any(_names(handler.type) & GUARDS for handler in node.handlers):
        children = [child for child in children if child not in node.body]
    for child in children:
        yield from _unguarded(child)


def _names(node):
    return {own.id for own in ast.walk(node) if isinstance(own, ast.Name)} if node is not None else {"Exception"}


def _chain(node):
    """["comfy", "sd", "VAE"] of the expression comfy.sd.VAE; None of any other."""
    if isinstance(node, ast.Name):
        return [node.id]
    before = _chain(node.value) if isinstance(node, ast.Attribute) else None
    return [*before, node.attr] if before else None


class Core:
    """The source of one ComfyUI, read without importing it."""

    def __init__(self, root):
        self.root = Path(root)
        self.names = functools.cache(self._names)

    def has(self, dotted):
        """Whether the module, or a name of a module, `dotted` is there. Attributes of classes and objects are not looked at."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            if self.file(parts[:length]):
                return length == len(parts) or parts[length] in self.names(tuple(parts[:length]))
        return False

    def file(self, parts):
        path = self.root.joinpath(*parts)
        files = [path.with_suffix(".py"), path / "__init__.py"]
        return next((file for file in files if file.is_file()), None) or (path if path.is_dir() and parts else None)

    def _names(self, module):
        """What the module's file defines at its top, in any branch, imports included; and what a class of it holds is not."""
        file = self.file(module)
        if file is None or file.is_dir():
            return frozenset()
        found = set()
        package = module if file.name == "__init__.py" else module[:-1]
        for node in _top(ast.parse(file.read_text(encoding="utf-8")).body):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = (*package[: len(package) - node.level + 1], *(node.module or "").split(".")) if node.level else None
                source = tuple(filter(None, source)) if source is not None else tuple((node.module or "").split("."))
                for alias in node.names:
                    found |= self.names(source) if alias.name == "*" else {alias.asname or alias.name}
            else:
                found |= {own.id for own in ast.walk(node) if isinstance(own, ast.Name) and isinstance(own.ctx, ast.Store)}
        return frozenset(found)


def _top(body):
    """The statements of a module, those of its branches among them."""
    for node in body:
        inner = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")] + [
            handler.body for handler in getattr(node, "handlers", [])
        ]
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.For)):
            for part in inner:
                yield from _top(part)
        else:
            yield node


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_name_of_comfyui_is_there(version):
    if not (CACHE / version).is_dir():
        pytest.skip(f"ComfyUI {version} is not here: `make lint` gets it")
    core, missing = Core(CACHE / version), []
    for path in SOURCES:
        for dotted, line in used_names(ast.parse(path.read_text(encoding="utf-8"))).items():
            if not core.has(dotted):
                missing.append(f"{path.relative_to(ROOT).as_posix()}:{line}: {dotted}")
    assert not missing


def test_the_reading_sees_what_it_should(tmp_path):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "here.py").write_text("if True:\n    known = 1\nfrom .other import *\n", encoding="utf-8")
    (tmp_path / "comfy" / "other.py").write_text("class Given: pass\n", encoding="utf-8")
    core = Core(tmp_path)
    assert [core.has(f"comfy.here{name}") for name in ("", ".known", ".Given", ".gone", ".Given.method")] == [1, 1, 1, 0, 1]
    assert not core.has("comfy.gone")
    code = """
import comfy.here
from comfy.other import Given as Taken
try:
    from comfy.here import gone
except ImportError:
    gone = comfy.here.absent
Taken.method
"""
    expected = {"comfy.here", "comfy.other.Given", "comfy.here.absent", "comfy", "comfy.other.Given.method"}
    assert expected == set(used_names(ast.parse(code)))


def test_what_is_read_is_what_the_pack_uses():
    found = {name for path in SOURCES for name in used_names(ast.parse(path.read_text(encoding="utf-8")))}
    assert {"comfy.model_management.throw_exception_if_processing_interrupted", "comfy.samplers.KSAMPLER"} <= found
