"""The pack's promises to the program that loads it: import cost, no network, no package changed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


MODULES = [path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted((ROOT / "fluxir_core").rglob("[a-z]*.py"))]
IMPORT_EVERYTHING = "import comfyui_fluxir, " + ", ".join(f"comfyui_fluxir.{name}".replace("/", ".") for name in MODULES)


def test_importing_costs_under_a_fifth_of_a_second_beyond_what_comfyui_imports():
    code = f"""
import time, torch, einops, safetensors.torch, numpy, PIL.Image
start = time.process_time()
{IMPORT_EVERYTHING}
print(time.process_time() - start)"""
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
