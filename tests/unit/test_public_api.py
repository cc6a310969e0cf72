"""The public interface: importable by name, imported only when asked for, and typed."""

import ast
import subprocess
import sys
from pathlib import Path

import comfyui_fluxir.fluxir_core as core
import pytest
from comfyui_fluxir import training

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("FluxIRAdapter", "AdapterConfig", "load_adapter", "save_adapter", "load_lora", "LoRA", "ConditionMode"),
    *("search", "estimate_cost", "Task", "SearchResult", "PRESETS", "EvolutionarySearch", "StepwiseSearch", "SMC", "Halving"),
    "WithinBudget",
    *("Verifier", "Ensemble", "DefaultEnsemble", "euler", "flux_sigmas", "match_color", "TASKS"),
}


def test_everything_public_can_be_imported():
    assert set(core.__all__) == PUBLIC and set(dir(core)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(core, name).__class__.__name__ != "module", name
    assert core.Task.__name__ == "Task" and core.search.__name__ == "search" and "quick" in core.PRESETS


def test_the_restorer_is_public_too():
    assert "Restorer" in dir(training) and training.Restorer.__name__ == "Restorer"


@pytest.mark.parametrize("module", [core, training])
def test_an_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense


def test_nothing_is_imported_before_it_is_asked_for():
    code = """
import sys
from comfyui_fluxir import fluxir_core
assert "torch" not in sys.modules
from comfyui_fluxir.fluxir_core import TASKS
assert "torch" in sys.modules and "comfyui_fluxir.fluxir_core.searches" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.mark.parametrize("package", ["fluxir_core", "training"])
def test_type_checkers_see_the_same_names(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in typed.body for alias in node.names}
    module = {"fluxir_core": core, "training": training}[package]
    assert set(seen) == set(module.__all__)
    for name, place in seen.items():
        assert getattr(module, name) is getattr(sys.modules[f"{module.__name__}.{place}"], name)
    assert (ROOT / package / "py.typed").exists()
