"""Work folders belong to one run at a time, and who comes second is told who holds them."""

import os
import re
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from comfyui_fluxir.fluxir_core.data import lock as locking
from comfyui_fluxir.fluxir_core.data.lock import locked
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.recipes.config import CONFIGS

HOLD = """
import sys, time
from comfyui_fluxir.fluxir_core.data.lock import locked
with locked(sys.argv[1], "--work"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `work` in tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "work")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_who_comes_second_is_told_who_holds_the_folder(tmp_path, holder):
    told = rf"--work: .*work is in use by process {holder.pid} on {re.escape(socket.gethostname())} since \d{{4}}-.*; wait for it"
    with pytest.raises(ValueError, match=told), locked(tmp_path / "work", "--work"):
        pass
    out = ["--out", str(tmp_path / "out.safetensors")]
    with pytest.raises(SystemExit, match=f"^fluxir train: {told}"):
        main(["train", "miniature", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=f"^fluxir train: {told}"):
        main(["train", "distill", "--config", str(CONFIGS / "distill-24gb.yaml"), "--work", str(tmp_path / "work"), *out])
    assert not (tmp_path / "out").exists()


def test_a_killed_run_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "work", "--work"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "work" / ".fluxir-lock").read_text(encoding="utf-8")
    assert (tmp_path / "work" / ".fluxir-lock").read_text(encoding="utf-8") == ""


def test_the_parts_of_a_shared_run_do_not_exclude_each_other(tmp_path):
    with locked(tmp_path, "OUT_DIR", "-0"), locked(tmp_path, "OUT_DIR", "-1"):
        with (
            pytest.raises(ValueError, match=f"OUT_DIR: .* is in use by process {os.getpid()} on "),
            locked(tmp_path, "OUT_DIR", "-0"),
        ):
            pass


def test_two_runs_of_fluxgen_do_not_share_an_output_folder(tmp_path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.png")
    with locked(tmp_path / "out", "OUT_DIR", "-0"):
        for step in (["degrade"], ["select", "--metrics", "niqe"]):
            with pytest.raises(SystemExit, match="fluxir fluxgen: OUT_DIR: .*out is in use by process"):
                main(["fluxgen", step[0], str(tmp_path / "in"), str(tmp_path / "out"), *step[1:]])


def test_on_windows_a_byte_far_behind_the_text_is_locked(tmp_path, monkeypatch):
    """msvcrt locks from the file's position; what is locked cannot be read by others."""
    calls, free = [], [True]

    class Msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(descriptor, mode, count):
            calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
            if not free[0]:
                raise OSError(13, "Permission denied")

    monkeypatch.setattr(locking, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(locking, "msvcrt", Msvcrt, raising=False)
    with locked(tmp_path, "--work"):
        assert calls == [(locking.FAR, 2, 1)]
        free[0] = False
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"), locked(tmp_path, "--work"):
            pass


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    with locked(tmp_path, "--work"):
        time.sleep(0)
    assert "cannot be locked (Operation not supported); let no other process write there" in caplog.text
