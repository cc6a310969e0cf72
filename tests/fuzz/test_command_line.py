"""Command lines of any options and values, on files of any kind: done, or refused in one sentence, and no input is touched."""

import contextlib
import io
import json
import logging
import shutil

import numpy as np
import pytest
import yaml
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter
from comfyui_fluxir.fluxir_core.image.files import read_image
from comfyui_fluxir.training.cli import main
from PIL import Image

from ..hosts.tiny import write_tiny
from .harness import assert_sentence, cases, digest, repeatable

ODD = (
    "",
    "x",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "nan",
    "inf",
    "1e400",
    str(2**64),
    str(2**64 - 1),
    "9" * 50,
    "ü",
    "..",
    "/",
    "none/x",
    "--",
)
OPTIONS = {
    "restore": {
        "--steps": ("1", "2"),
        "--seed": ("0", "7"),
        "--scale": ("1", "0.5", "2"),
        "--fidelity": ("0", "1"),
        "--tile": ("64",),
        "--few-steps": ("1",),
        "--adapter": ("fluxir", "ummf"),
        "--preset": ("best_of_n",),
        "--verifiers": ("niqe",),
        "--prompt": ("", "a house"),
        "--json": ("OUT",),
    },
    "eval": {"--csv": ("OUT", "IN"), "--plot": ("OUT.png", "OUT"), "--metrics": ("niqe", "beauty")},
    "plan": {"--preset": ("quick", "paper"), "--steps": ("5",), "--shift": ("0", "1.15")},
    "params": {"--rank": ("4", "full"), "--adapter": ("fluxir", "ummf")},
    "export": {"--step": ("1",), "--weights": ("last",), "--dtype": ("float32",)},
    "fluxgen select": {"--metrics": ("coherent_gradient", "niqe", "beauty"), "--keep": ("0.5", "1")},
    "fluxgen degrade": {"--seed": ("0", "5"), "--selection": ("IN", "OUT")},
    "fluxgen generate": {
        "--count": ("1", "2"),
        "--size": ("32x32", "32"),
        "--steps": ("1",),
        "--seed": ("0",),
        "--prompts": ("IN",),
    },
    "train fluxir": {"--config": ("IN",), "--work": ("OUT",), "--out": ("OUT.safetensors", "OUT"), "--plan": ()},
    "results cost": {"--json": ("OUT",)},
}
PLACES = {
    "restore": 2,
    "eval": 3,
    "plan": 0,
    "params": 0,
    "export": 2,
    "fluxgen select": 2,
    "fluxgen degrade": 2,
    "fluxgen generate": 1,
    "train fluxir": 0,
    "results cost": 0,
}
"""How many places, of inputs and outputs, a command takes."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with inputs of every kind, whole and odd."""
    folder = tmp_path_factory.mktemp("inputs")
    for place in ("lq", "deep/er", "empty", "shards"):
        (folder / place).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "lq/a.png", "lq/b.jpg", "deep/er/c.webp"):
        Image.fromarray(pixels).save(folder / name)
    with ShardWriter(folder / "shards" / "s.tar") as shard:
        shard.add("0", {"hq.png": (folder / "a.png").read_bytes()}, {"prompt": "text"})
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "lq" / "broken.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "table.csv").write_text("image,files\na,x\n", encoding="utf-8")
    (folder / "text.txt").write_text("a house\n", encoding="utf-8")
    (folder / "null").write_bytes(b"\0" * 5000)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"base": {"folder": "none"}, "data": {"images": "none"}, "run": {"steps": 1, "batch": 1}}), encoding="utf-8"
    )
    (folder / "page.md").write_text("<!-- results: cost -->\n<!-- end -->\n", encoding="utf-8")
    (folder / "deep.json").write_text("[" * 5000, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_tiny(folder)
    return folder


def place(draw, inputs, out, model):
    """A path that may be an input, an output or neither."""
    there = [*sorted(inputs.rglob("*")), inputs, model, *sorted(out.rglob("*")), out]
    new = [out / name for name in ("new", "new.png", "new.jpg", "new.json", "new.safetensors", "no/where.png", "x" * 300)]
    odd = ["/dev/null", "/dev/full", "/dev/zero", "/proc/1/mem", "none", "", "-", "\0"]
    return str(draw.choice(draw.choice((there, there, new, new, odd))))


def arguments(draw, inputs, out, model):
    """A command line that is often nearly right."""
    command = draw.choice(sorted(OPTIONS))
    values = {"IN": lambda: place(draw, inputs, out, model), "OUT": lambda: str(out / "file")}

    def value(choices):
        chosen = draw.choice(choices) if draw.maybe(0.8) else draw.choice(ODD)
        return values[chosen]() if chosen in values else chosen.replace("OUT", str(out / "file"))

    line = command.split()
    for number in range(PLACES[command] if draw.maybe(0.9) else draw.randint(0, 4)):
        if draw.maybe(0.7):
            good = (
                (inputs / "a.png", out / "restored.png") if command == "restore" else (inputs / "lq", out / "made", inputs / "lq")
            )
            line.append(str(good[min(number, len(good) - 1)]))
        else:
            line.append(place(draw, inputs, out, model))
    for option, choices in draw.sample(sorted(OPTIONS[command].items()), draw.randint(0, len(OPTIONS[command]))):
        line += [option, value(choices)] if choices else [option]
    if command in ("restore", "fluxgen generate"):
        line += ["--model", str(model) if draw.maybe(0.9) else place(draw, inputs, out, model)]
        line += ["--steps", "1"] if "--steps" not in line else []
    if command == "results cost":  # never the repository's own page
        line += ["--page", str(inputs / "page.md") if draw.maybe() else place(draw, inputs, out, model)]
    if command == "train fluxir":
        line = line if "--plan" not in line else ["train", "fluxir", "--config", place(draw, inputs, out, model), "--plan"]
    return [draw.choice(ODD) if draw.maybe(0.02) and word != "--page" else word for word in line]


def call(line):
    """(exit status, what was written to the error output)."""
    complaint = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaint):
        try:
            main(line)
        except SystemExit as ended:
            return ended.code, complaint.getvalue()
    return 0, complaint.getvalue()


def test_any_command_line_is_done_or_refused_in_one_sentence(whole, model, tmp_path, monkeypatch):
    logging.disable(logging.INFO)
    monkeypatch.setattr("comfyui_fluxir.training.studies.tables.cost", lambda size: ([], "a table"))
    for draw in cases("command-line", 20):
        folder = tmp_path / str(draw.number)
        inputs, out = folder / "inputs", folder / "out"
        shutil.copytree(whole, inputs)
        out.mkdir()
        monkeypatch.chdir(out)
        line = arguments(draw, inputs, out, model)
        before = digest(inputs), digest(model)
        with repeatable(draw, json.dumps(line)):
            status, complaint = call(line)
            assert status in (0, 2), complaint
            if status:
                assert_sentence(complaint.rstrip("\n"))
                assert complaint.startswith("fluxir")
            changed = {name for name, was in before[0].items() if digest(inputs).get(name) != was}
            assert not changed or (line[:2] == ["results", "cost"] and len(changed) == 1), changed
            assert digest(model) == before[1] and not list(folder.rglob("*.partial"))
            if status == 0 and line[0] == "restore" and (out / "restored.png").is_file():
                assert read_image(out / "restored.png").pixels.std() > 0
                first = (out / "restored.png").read_bytes()
                (out / "restored.png").unlink()
                assert call(line)[0] == 0 and (out / "restored.png").read_bytes() == first
        shutil.rmtree(folder)
    logging.disable(logging.NOTSET)
