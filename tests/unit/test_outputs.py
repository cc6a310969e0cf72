"""Outputs of commands: what cannot be written is refused before anything is computed, and no result is lost."""

import os
import re

import pytest
from comfyui_fluxir.training import outputs
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.outputs import check_apart, check_file, check_folder, deliver, deliver_data
from PIL import Image


def computed(*_arguments, **_options):
    raise AssertionError("it computed before it looked at its outputs")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with images, a file where a folder is meant and a model whose loading fails the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("in", "out", "hq"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (90, 120, 150)).save(tmp_path / name / "a.png")
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "README.md").write_text("<!-- results: cost -->\n<!-- end -->", encoding="utf-8")
    for where in (
        "diffusers_host.restorer.Restorer.__init__",
        "commands.evaluate.measure",
        "recipes.train.jumps_of",
        "fluxgen.generate.Base.__init__",
        "fluxgen.select.score",
        "fluxgen.degrade.degrade",
        "recipes.export.RunFolder.load",
        "studies.tables.cost",
        "commands.fit.fit",
        "recipes.train.train",
        "miniature.recipe.train_miniature",
    ):
        monkeypatch.setattr(f"comfyui_fluxir.training.{where}", computed)
    return tmp_path


RESTORE, EVAL, RESULTS = ["restore", "in/a.png"], ["eval", "in", "out", "hq", "--metrics"], ["results", "cost", "--page"]
SCHEDULE, TRAIN = ["schedule", "--config", "c.yaml"], ["train", "fluxir", "--config", "c.yaml"]
REFUSALS = [
    ([*RESTORE, "none/out.png"], "OUT: the folder of none/out.png is missing; make it or name another."),
    ([*RESTORE, "out"], "OUT: out is a folder; give the name of a file."),
    ([*RESTORE, "result"], "result has no suffix of an image format that is written; use .png, .jpg"),
    ([*RESTORE, "result.xyz"], "result.xyz has no suffix of an image format that is written; use .png"),
    ([*RESTORE, "result.gif"], "result.gif has no suffix of an image format that is written; use .png"),
    ([*RESTORE, "file/out.png"], "OUT: the folder of file/out.png is missing; make it or name another."),
    ([*RESTORE, f"{'x' * 300}.png"], r"OUT: x+ cannot be written \(.+\); name another file."),
    ([*RESTORE, "in/a.png"], "OUT and IN are the same, in/a.png; name two places."),
    ([*RESTORE, "out/../in/a.png"], "OUT and IN are the same"),
    ([*RESTORE, "out.png", "--json", "none/r.json"], "--json: the folder of none/r.json is missing"),
    ([*RESTORE, "out.png", "--json", "out"], "--json: out is a folder; give the name of a file."),
    ([*RESTORE, "out.png", "--json", "out.png"], "--json and OUT are the same, out.png; name two places."),
    ([*RESTORE, "out.png", "--json", "/dev/null"], "--json: /dev/null is a device or a pipe; give the name of a file."),
    ([*RESTORE, "/dev/null"], "OUT: /dev/null is a device or a pipe"),
    ([*EVAL, "--csv", "none/t.csv"], "--csv: the folder of none/t.csv is missing"),
    ([*EVAL, "--csv", "out"], "--csv: out is a folder"),
    ([*EVAL, "--csv", "/dev/null"], "--csv: /dev/null is a device or a pipe"),
    ([*EVAL, "--plot", "none/t.png"], "--plot: the folder of none/t.png is missing"),
    ([*EVAL, "--plot", "t.jpg"], "--plot: t.jpg is no PNG file; let it end in .png."),
    ([*EVAL, "--csv", "t.png", "--plot", "t.png"], "--plot and --csv are the same, t.png"),
    (["export", "work", "out.txt"], "OUTPUT: out.txt is no SAFETENSORS file; let it end in .safetensors."),
    (["export", "work", "file/a.safetensors"], "OUTPUT: .*file is a file; give a folder."),
    (["export", "work", "/dev/null"], "OUTPUT: /dev/null is a device or a pipe"),
    (["fluxgen", "generate", "file", "--count", "1"], "OUT_DIR: .*file is a file; give a folder."),
    (["fluxgen", "generate", "/dev/null", "--count", "1"], "OUT_DIR: /dev/null is a file; give a folder."),
    (["fluxgen", "select", "in", "file", "--metrics", "niqe"], "OUT_DIR: .*file is a file; give a folder."),
    (["fluxgen", "degrade", "in", "file/pairs"], "OUT_DIR: .*file is a file; give a folder."),
    ([*SCHEDULE, "--json", "none/c.json"], "--json: the folder of none/c.json is missing"),
    ([*TRAIN, "--out", "o.txt", "--work", "w"], "--out: o.txt is no SAFETENSORS file"),
    ([*TRAIN, "--out", "file/o.safetensors", "--work", "w"], "--out: .*file is a file; give a folder."),
    ([*TRAIN, "--out", "o.safetensors", "--work", "file"], "--work: .*file is a file; give a folder."),
    (["train", "miniature", "--out", "file", "--work", "w"], "--out: .*file is a file; give a folder."),
    (["train", "miniature", "--out", "w", "--work", "w"], "--out and --work are the same, w; name two places."),
    (["train", "distill", "--config", "c.yaml", "--work", "file/w"], "--work: .*file is a file; give a folder."),
    ([*SCHEDULE, "--work", "file/w"], "--work: .*file is a file; give a folder."),
    ([*RESULTS, "none.md"], "--page: none.md cannot be read; run this in the repository, or give a Markdown file."),
    ([*RESULTS, "file"], "file has no block `<!-- results: cost -->`"),
    ([*RESULTS, "README.md", "--json", "none/r.json"], "--json: the folder of none/r.json is missing"),
    (["fit", "niqe", "--output", "none/n.safetensors"], "--output: the folder of none/n.safetensors is missing"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSALS, ids=[" ".join(arguments)[:60] for arguments, _ in REFUSALS])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(place, capsys, arguments, sentence):
    if os.name == "nt" and "/dev/null" in arguments:
        pytest.skip("Windows has no files that are devices")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = str(ended.value).replace(os.sep, "/")
    assert ended.value.code == 2 and re.match(rf"fluxir {arguments[0]}: {sentence}", said), said
    assert set(place.rglob("*")) == before.keys()
    capsys.readouterr()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs rights to be refused")
def test_a_protected_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written .Permission denied."):
        check_file("OUT", tmp_path / "a.png")
    with pytest.raises(ValueError, match="cannot be written to .Permission denied."):
        check_folder("--out", tmp_path / "new")


def test_what_can_be_written_passes_and_nothing_is_left_behind(tmp_path):
    check_file("OUT", tmp_path / "a.png", (".png",))
    check_file("OUT", tmp_path / "new" / "a.png", make_folder=True)
    check_folder("--out", tmp_path / "new" / "one")
    check_apart({"OUT": tmp_path / "a", "--json": None}, {"IN": tmp_path / "b"})
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_cannot_be_written_is_put_elsewhere_and_named(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    missing = tmp_path / "file" / "out.txt"
    missing.parent.write_text("in the way", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out.txt cannot be written \(.+\); the result is in (.+)\.$") as raised:
        deliver_data(missing, "the result")
    (rescued,) = (tmp_path / "here").rglob("out.txt")
    assert rescued.read_text(encoding="utf-8") == "the result" and str(rescued) in str(raised.value)


def test_when_no_place_is_left_that_is_said(tmp_path, monkeypatch):
    def full(_place):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\), nor can any other place; make room"):
        deliver(tmp_path / "a", full)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_or_not_at_all_and_links_are_followed(tmp_path, monkeypatch):
    (tmp_path / "real.txt").write_text("old", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    deliver_data(tmp_path / "link.txt", "new")
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == "new" and (tmp_path / "link.txt").is_symlink()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outputs.deliver_data(tmp_path / "real.txt", "half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "real.txt"]
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == "new"
