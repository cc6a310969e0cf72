"""The `fluxir` command: whatever it is given, it does it or says why not in one sentence."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from comfyui_fluxir.training import cli
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.commands import plan
from comfyui_fluxir.training.engine.stopping import StopSignal
from comfyui_fluxir.training.recipes.config import CONFIGS


def refused(capsys, *arguments, status=2):
    """The one sentence that the command says when it refuses `arguments`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == status
    assert said == f"{ended.value}\n" and said.count("\n") == 1 and "Traceback" not in said
    return said.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["restore", "a.png", "b.png", "--seed", 2**64], f"fluxir restore: --seed is {2**64}; use at most {2**64 - 1}"),
        (["restore", "a.png", "b.png", "--seed", "-1"], "fluxir restore: --seed is -1; use at least 0"),
        (["restore", "a.png", "b.png", "--seed", "x"], "fluxir restore: --seed is 'x'; use a whole number of at least 0"),
        (["restore", "a.png", "b.png", "--seed", "9" * 5000], f"fluxir restore: --seed is '{'9' * 40}'; use a whole number"),
        (["restore", "a.png", "b.png", "--steps", 10**9], "fluxir restore: --steps is 1000000000; use at most 10000"),
        (["restore", "a.png", "b.png", "--scale", "nan"], "fluxir restore: --scale is nan; use a value from 0.25 to 8"),
        (["restore", "a.png", "b.png", "--fidelity", "inf"], "fluxir restore: --fidelity is inf; use a value from 0 to 1"),
        (["restore", "a.png"], "fluxir restore: the following arguments are required: OUT"),
        (["fluxgen", "generate", "out", "--count", 1, "--seed", 2**64], f"fluxir fluxgen: --seed is {2**64}; use at most"),
        (["fluxgen", "degrade", "in", "out", "--seed", 2**70], f"fluxir fluxgen: --seed is {2**70}; use at most"),
        (["fluxgen", "select", "in", "out", "--keep", 0], "fluxir fluxgen: --keep is 0; use a value from 1e-06 to 1"),
        (["schedule", "--config", "x", "--steps", 99], "fluxir schedule: --steps is 99; use at most 23"),
        (["plan", "--shift", "nan"], "fluxir plan: --shift is nan; use a value from -20 to 20"),
        (["params", "--rank", "²"], "fluxir params: --rank is '²'; use a whole number of at least 1"),
        (["params", "--adapter", "ummf", "--rank", "full"], "fluxir params: --rank is full, which --adapter ummf does not have"),
        (["results", "curve", "miniature"], "fluxir results: miniature is no model with a label; write LABEL=FOLDER"),
        (["nothing"], "fluxir: COMMAND: invalid choice: 'nothing'"),
        ([], "fluxir: the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(capsys, arguments, sentence):
    assert refused(capsys, *arguments).startswith(sentence)


@pytest.mark.parametrize(
    "arguments",
    [
        ["restore", "IN", "OUT.png", "--model", "nowhere"],
        ["restore", "IN", "OUT.png", "--model", os.devnull],
        ["fluxgen", "generate", "OUT", "--count", 1, "--model", "nowhere"],
        ["train", "fluxir", "--config", CONFIGS / "fluxir-24gb.yaml", "--work", "OUT", "--out", "OUT.safetensors"],
        ["results", "miniature", "--model", "nowhere"],
    ],
)
def test_an_unknown_model_folder_is_refused_in_one_sentence(capsys, tmp_path, arguments):
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    places = {
        "IN": tmp_path / "in.png",
        "OUT": tmp_path / "out",
        "OUT.png": tmp_path / "out.png",
        "OUT.safetensors": tmp_path / "o.safetensors",
    }
    said = refused(capsys, *(places.get(argument, argument) for argument in arguments))
    assert "--model: there is no model folder" in said and not (tmp_path / "out.png").exists()


def test_schedules_of_a_file_that_is_not_there_are_refused(capsys, tmp_path):
    said = refused(capsys, "schedule", "--config", CONFIGS / "distill-24gb.yaml", "--work", tmp_path)
    assert "start: there is no file output/reinforce.safetensors; train it first, or name another." in said.replace(os.sep, "/")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a file without an end")
@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--prompts", ["fluxgen", "generate", "out", "--count", 1, "--prompts"]),
        ("--selection", ["fluxgen", "degrade", "in", "out", "--selection"]),
        ("--config", ["train", "fluxir", "--config"]),
        ("--config", ["bench", "training", "--config"]),
        ("--page", ["results", "cost", "--page"]),
    ],
)
def test_a_text_without_an_end_is_not_read(capsys, option, arguments):
    said = refused(capsys, *arguments, "/dev/zero")
    assert said == f"fluxir {arguments[0]}: {option} is /dev/zero, a device or a pipe; give the name of a file."


@pytest.mark.parametrize("data", [b"image,files\n\xff\xfe,1\n", b"a" * 200_000, b'image,files\n"' + b"a" * 200_000, b"\0\0"])
def test_a_broken_csv_is_refused_in_one_sentence(capsys, tmp_path, data):
    from PIL import Image

    for name in ("lq", "out"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / name / "a.png")
    (tmp_path / "t.csv").write_bytes(data)
    said = refused(capsys, "eval", tmp_path / "lq", tmp_path / "out", "--metrics", "--csv", tmp_path / "t.csv")
    assert "t.csv is not a table of fluxir eval; name another file." in said
    said = refused(capsys, "fluxgen", "degrade", tmp_path / "lq", tmp_path / "pairs", "--selection", tmp_path / "t.csv")
    assert "t.csv is no table of fluxir fluxgen select; give its selection.csv." in said


def test_a_number_that_is_none_in_a_csv_is_measured_again(tmp_path):
    from comfyui_fluxir.training.commands.evaluate import read_rows
    from PIL import Image

    for name in ("lq", "out"):
        (tmp_path / name).mkdir()
        Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / name / "a.png")
    command = ["eval", str(tmp_path / "lq"), str(tmp_path / "out"), "--metrics", "--csv", str(tmp_path / "t.csv")]
    main(command)
    whole = read_rows(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(
        (tmp_path / "t.csv").read_text(encoding="utf-8").replace(whole["a"]["niqe"], "x12"), encoding="utf-8"
    )
    main(command)
    assert read_rows(tmp_path / "t.csv") == whole


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (ValueError("two\nlines"), "two lines", 2),
        (ImportError("No module named 'peft'", name="peft.tuners"), "the library peft cannot be imported; run `pip install", 2),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b cannot be used (Permission denied); check", 2),
        (OSError(28, "No space left on device"), "a file failed (No space left on device); check", 2),
        (MemoryError(), "memory ran out; use smaller images", 1),
        (torch.cuda.OutOfMemoryError("CUDA"), "memory ran out; use smaller images", 1),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "memory ran out; use smaller images", 1),
        (KeyError("x"), "an error that it does not know (KeyError: 'x'); run it with --debug, and report it.", 1),
        (KeyboardInterrupt(), "stopped.", 130),
    ],
)
def test_every_exception_is_said_in_one_sentence_and_traced_only_when_asked(monkeypatch, capsys, error, sentence, status):
    def run(_arguments):
        raise error

    monkeypatch.setattr(plan, "run", run)
    assert refused(capsys, "plan", status=status).startswith(f"fluxir plan: {sentence}")
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            main(["plan", "--debug"])


def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(plan, "run", lambda _: signal.raise_signal(signal.SIGTERM) or time.sleep(5))
    assert refused(capsys, "plan", status=130) == "fluxir plan: stopped."
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_that_a_library_turned_into_an_error_is_one(monkeypatch, capsys):
    def swallowed(_arguments):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of object type") from None

    monkeypatch.setattr(plan, "run", swallowed)
    assert refused(capsys, "plan", status=130) == "fluxir plan: stopped."


def test_who_asks_twice_does_not_wait():
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)


def test_the_process_ends_with_the_status_and_the_sentence():
    done = subprocess.run([sys.executable, "-m", cli.__name__, "plan", "--steps", "0"], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (2, "fluxir plan: --steps is 0; use at least 1.\n", "")


def test_what_is_written_goes_through_an_output_of_any_encoding():
    code = "from comfyui_fluxir.training import cli; cli._run = lambda _: print('a \\u2193 \\udcff'); cli.main([])"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.split() == [b"a", "\u2193".encode(), rb"\udcff"], done.stderr
