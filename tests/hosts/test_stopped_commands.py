"""Ctrl-C in every command that works image by image: it ends at the image at hand, what is done is kept, and it goes on."""

import signal

import numpy as np
import pytest
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter, read_index
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.commands import evaluate, restore, results
from comfyui_fluxir.training.fluxgen import generate, select
from PIL import Image

from .tiny import write_tiny

IMAGES, DONE = 5, 2
"""How many images there are, and how many are done when Ctrl-C comes."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model folder with images in it."""
    folder = tmp_path_factory.mktemp("stopped")
    write_tiny(folder)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    return folder


def interrupted(monkeypatch, owner, name, at):
    """Lets Ctrl-C come when `owner.name` is called for the time number `at`."""
    calls, function = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def files(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def images_in_shards(out):
    """How many images the shards in `out` hold, finished or not."""
    return sum(len(read_index(path)[0]) for path in out.glob("*.tar*"))


KINDS = {
    "restore": (
        lambda inputs, out: ["restore", inputs / "images", out, "--model", inputs, "--steps", "1"],
        (restore, "read_image", DONE + 1),
        lambda out: len(list(out.glob("*.png"))),
    ),
    "restore in tiles": (
        lambda inputs, out: ["restore", inputs / "images", out, "--model", inputs, "--steps", "1", "--tile", "64"],
        (restore, "image_bytes", DONE + 1),
        lambda out: len(list(out.glob("*.png"))),
    ),
    "restore with a search": (
        lambda inputs, out: ["restore", inputs / "images", out, "--model", inputs, "--steps", "4", "--preset", "quick"],
        (restore, "image_bytes", DONE + 1),
        lambda out: len(list(out.glob("*.png"))),
    ),
    "eval": (
        lambda inputs, out: ["eval", inputs / "images", inputs / "images", "--metrics", "--csv", out / "rows.csv"],
        (evaluate, "read_image", 2 * DONE + 1),
        lambda out: len(evaluate.read_rows(out / "rows.csv")),
    ),
    "fluxgen generate": (
        lambda inputs, out: [
            *("fluxgen", "generate", out, "--model", inputs, "--count", IMAGES, "--size", "32x32"),
            *("--steps", 1, "--batch", 1, "--per-shard", 3),
        ],
        (generate, "png_bytes", DONE + 1),
        images_in_shards,
    ),
    "fluxgen select": (
        lambda inputs, out: ["fluxgen", "select", inputs / "images", out, "--metrics", "coherent_gradient"],
        (select, "_line", DONE + 1),
        lambda out: sum(bool(line.strip()) for path in out.rglob("*.jsonl") for line in path.read_bytes().splitlines()),
    ),
    "fluxgen degrade": (
        lambda inputs, out: ["fluxgen", "degrade", inputs / "images", out],
        (ShardWriter, "add", DONE + 1),
        images_in_shards,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_ends_at_the_image_at_hand_keeps_what_is_done_and_goes_on(monkeypatch, capsys, inputs, tmp_path, kind):
    line, place, done = KINDS[kind]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), out.mkdir()
    main([str(word) for word in line(inputs, whole)])
    capsys.readouterr()
    with monkeypatch.context() as patched:
        calls = interrupted(patched, *place)
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in line(inputs, out)])
    assert ended.value.code == 130 and capsys.readouterr().err.splitlines()[-1] == f"fluxir {kind.split()[0]}: stopped."
    assert len(calls) == place[2] and done(out) == DONE, "it went on, or lost what was done"
    main([str(word) for word in line(inputs, out)])
    assert done(out) == done(whole) == IMAGES and not list(out.rglob("*.partial"))
    made = [name for name in files(whole) if name.endswith((".png", ".tar", ".csv"))]
    assert made and [files(out)[name] == files(whole)[name] for name in made] == [True] * len(made)


def test_a_table_that_was_stopped_leaves_its_page_as_it_was(monkeypatch, capsys, tmp_path):
    page, json = tmp_path / "cost.md", tmp_path / "rows.json"
    page.write_text("<!-- results: cost -->\nbefore\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(results.tables, "cost", lambda size: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as ended:
        main(["results", "cost", "--page", str(page), "--json", str(json)])
    assert ended.value.code == 130 and capsys.readouterr().err.splitlines()[-1] == "fluxir results: stopped."
    assert "before" in page.read_text(encoding="utf-8") and list(tmp_path.iterdir()) == [page]
