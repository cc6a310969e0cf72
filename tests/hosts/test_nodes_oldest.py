"""One process holds one ComfyUI: the in-process tests run again, in a process of their own, on the oldest supported."""

import os
import subprocess
import sys
from pathlib import Path

from comfyui_fluxir.demo.environment import OLDEST, comfyui_path

HERE = Path(__file__).parent


def test_the_nodes_pass_their_tests_on_the_oldest_supported_comfyui():
    subjects = ("nodes", "nodes_injection", "nodes_company", "two_hosts", "ummf_nodes", "ummf_references", "tiles", "help_pages")
    files = [HERE / f"test_{subject}.py" for subject in subjects]
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path(OLDEST))}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, files)]
    ended = subprocess.run(command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout[-3000:]
