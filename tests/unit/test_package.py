"""The pack's promises to the program that loads it: dependency arrows, import cost, no network, no package changed."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "fluxir_core": {"comfy", "comfy_api", "folder_paths", "diffusers", "nodes", "training", "demo"},
    "nodes": {"diffusers", "training", "demo"},
    "training": {"comfy", "comfy_api", "folder_paths", "nodes", "demo"},
    "demo": {"comfy", "comfy_api", "folder_paths", "nodes", "training"},
}


def imported_names(path):
    """First names of everything `path` imports; for this pack's own modules, the name of the part they belong to."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            if node.level:
                target = package[: len(package) - node.level + 1] + module
                yield from [target[0]] if target else [alias.name for alias in node.names]
            else:
                yield module[0]


@pytest.mark.parametrize("part", FORBIDDEN)
def test_dependencies_point_one_way(part):
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    wrong = {(str(path.relative_to(ROOT)), name) for path in files for name in imported_names(path) if name in FORBIDDEN[part]}
    assert not wrong


def test_the_arrow_test_sees_forbidden_arrows(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    source = tmp_path / "fluxir_core" / "adapter" / "bad.py"
    source.parent.mkdir(parents=True)
    source.write_text("import comfy.sd\nfrom ...training import host\nfrom ... import nodes\nfrom ..flow import euler\n")
    assert set(imported_names(source)) == {"comfy", "training", "nodes", "fluxir_core"}


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_EVERYTHING = "import comfyui_fluxir, comfyui_fluxir.fluxir_core.adapter, comfyui_fluxir.fluxir_core.flow"


def test_importing_costs_under_a_fifth_of_a_second_beyond_what_comfyui_imports():
    code = f"""
import time, torch, einops, safetensors.torch, numpy, PIL.Image
start = time.perf_counter()
{IMPORT_EVERYTHING}
print(time.perf_counter() - start)"""
    assert min(float(run_python(code)) for _ in range(3)) < 0.2


def test_importing_uses_no_network_and_no_heavy_library():
    code = f"""
import socket, sys
def refuse(*_): raise AssertionError("network at import")
socket.socket.connect = socket.getaddrinfo = refuse
{IMPORT_EVERYTHING}
print([name for name in ("diffusers", "transformers", "pyiqa", "peft", "piq", "accelerate") if name in sys.modules])"""
    assert run_python(code).strip() == "[]"


def test_the_command_line_imports_only_what_a_command_needs():
    code = """
import sys
from comfyui_fluxir.training.cli import main
main(["params", "--rank", "16"])
print([name for name in ("diffusers", "transformers") if name in sys.modules])"""
    assert run_python(code).strip().endswith("[]")


def test_installing_the_pack_into_comfyuis_environment_changes_no_package():
    report = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {entry["metadata"]["name"].lower() for entry in json.loads(report.stdout)["install"]}
    assert names <= {"fluxir"}
