"""FluxGen's selection and degradation, alone and by several processes; generation is in tests/hosts."""

import csv
import math
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur
from comfyui_fluxir.fluxir_core.degrade.tasks import TASKS
from comfyui_fluxir.fluxir_core.image.files import png_bytes, save_image
from comfyui_fluxir.fluxir_core.verify.niqe import NIQE
from comfyui_fluxir.fluxir_core.verify.selection import PAPER, read_table, select, table
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.fluxgen import degrade, work
from comfyui_fluxir.training.fluxgen import select as selecting
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image

OWN = ("--metrics", "niqe", "coherent_gradient")


def run(*arguments):
    main(["fluxgen", *map(str, arguments)])


@pytest.fixture(scope="module")
def crops():
    """Six crops of a photo (3, 64, 80), in steps of 8 bits; the second is blurred."""
    photo = torch.from_numpy(load_photo("coffee").copy()).permute(2, 0, 1).float() / 255
    found = [photo[:, 40 * n : 40 * n + 64, 60 * n : 60 * n + 80] for n in range(6)]
    found[1] = (gaussian_blur(found[1], 8) * 255).round() / 255
    return found


@pytest.fixture
def photos(crops, tmp_path):
    """A folder of them, with an image that is none and one that is empty."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, crop in enumerate(crops):
        save_image(crop, folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture
def shards(crops, tmp_path):
    """The same images in three shards of two, one behind the other."""
    folder = tmp_path / "shards"
    for part in range(3):
        with ShardWriter(folder / f"s{part}.tar") as shard:
            for number in (2 * part, 2 * part + 1):
                shard.add(f"{number}", {"hq.png": png_bytes(crops[number])}, {"prompt": "", "seed": number})
    return folder


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_an_image_is_kept_where_every_score_is_at_or_above_its_metrics_fifth_percentile():
    draw = np.random.default_rng(0)
    scores = {"a": draw.normal(size=201), "b": draw.uniform(size=201), "c": draw.gamma(1, size=201)}
    selection = select(scores)
    for name, values in scores.items():
        assert selection.limits[name] == np.percentile(values, 5)
        assert [name in by for by in selection.dropped_by] == [value < np.percentile(values, 5) for value in values]
        assert sum(name in by for by in selection.dropped_by) == 10


def test_equal_scores_are_all_kept_and_no_number_is_dropped():
    assert select({"a": [1.0, 1.0, 1.0]}).dropped_by == [[], [], []]
    selection = select({"a": [1.0, math.nan, -math.inf, 1.0], "failed": [math.nan] * 4})
    assert selection.dropped_by == [[], ["a"], ["a"], []] and set(selection.limits) == {"a"}
    with pytest.raises(ValueError, match="no metric has a number"):
        select({"a": [math.nan]})


def test_a_vetos_refusal_drops_however_many_it_refuses():
    assert select({"veto_noise": [-1.0, -1.0, 0.0]}).dropped_by == [["veto_noise"], ["veto_noise"], []]


def test_a_table_is_read_back_as_what_was_kept(tmp_path):
    scores = {"a": [0.1, 5.0, 6.0], "b": [1.0, 1.0, 1.0]}
    (tmp_path / "t.csv").write_text(table(["x, y", "z", "w"], scores, select(scores), [("q", "it is empty")]), encoding="utf-8")
    rows = rows_of(tmp_path / "t.csv")
    assert rows["x, y"]["dropped by"] == "a"
    assert rows["q"] == {"file": "q", "a": "", "b": "", "kept": "no", "dropped by": "it is empty"}
    assert read_table(tmp_path / "t.csv") == {"z": {"a": 5.0, "b": 1.0}, "w": {"a": 6.0, "b": 1.0}}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    for name in ("other.csv", "missing.csv"):
        with pytest.raises(ValueError, match=rf"{name} is no table of fluxir fluxgen select"):
            read_table(tmp_path / name)


def test_select_scores_photos_and_says_what_drops_each(photos, crops, tmp_path, capsys):
    run("select", photos, tmp_path / "out", *OWN)
    rows = rows_of(tmp_path / "out" / "selection.csv")
    assert set(rows) == {*(f"{n}.png" for n in range(6)), "broken.png"}
    for number, crop in enumerate(crops):
        assert float(rows[f"{number}.png"]["niqe"]) == NIQE()(crop[None]).item()
    assert "niqe" in rows["1.png"]["dropped by"] and rows["1.png"]["kept"] == "no"
    assert "cannot be read as an image" in rows["broken.png"]["dropped by"]
    said = capsys.readouterr().out
    assert "broken.png: broken.png cannot be read" in said and "empty.jpg: the file is empty" in said
    assert (tmp_path / "out" / "skipped" / "source.csv").read_text(encoding="utf-8") == "empty.jpg,the file is empty\n"
    with Image.open(tmp_path / "out" / "dropped.png") as sheet:
        assert np.asarray(sheet).std() > 0


def test_many_processes_select_as_one_does_and_the_last_one_writes(shards, tmp_path, monkeypatch, capsys):
    run("select", shards, tmp_path / "one", *OWN)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        assert not (tmp_path / "many" / "selection.csv").exists()
        monkeypatch.setenv("RANK", str(rank))
        run("select", shards, tmp_path / "many", *OWN)
    assert "scored 2 of 6; the process that finishes last writes" in capsys.readouterr().out
    for name in ("selection.csv", "dropped.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_select_measures_only_what_is_missing(shards, crops, tmp_path, monkeypatch):
    run("select", shards, tmp_path / "out", "--metrics", "niqe")
    first, seen = (tmp_path / "out" / "selection.csv").read_bytes(), []
    call = NIQE.__call__
    monkeypatch.setattr(NIQE, "__call__", lambda self, *given: seen.append(1) or call(self, *given))
    scores = tmp_path / "out" / "scores" / "s1.jsonl"
    scores.write_text(scores.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # the last line was being written
    run("select", shards, tmp_path / "out", "--metrics", "niqe")
    assert len(seen) == 1 and (tmp_path / "out" / "selection.csv").read_bytes() == first
    run("select", shards, tmp_path / "out", *OWN)
    assert len(seen) == 1 and "coherent_gradient" in rows_of(tmp_path / "out" / "selection.csv")["s0.tar/0.hq.png"]
    with ShardWriter(shards / "s1.tar") as shard:
        shard.add("7", {"hq.png": png_bytes(crops[0].flip(1))}, {})
    run("select", shards, tmp_path / "out", *OWN)
    assert len(seen) == 2 and len(rows_of(tmp_path / "out" / "selection.csv")) == 7


def test_the_papers_metrics_are_asked_for_and_named_when_they_are_missing(shards, tmp_path, monkeypatch):
    assert PAPER == ("clipiqa+_vitL14_512", "maniqa-pipal", "musiq")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    sentence = r"^fluxir fluxgen: the metric clipiqa\+_vitL14_512 is missing: .* pip install pyiqa .*\.$"
    with pytest.raises(SystemExit, match=sentence) as stopped:
        run("select", shards, tmp_path / "out")
    assert "\n" not in str(stopped.value) and not (tmp_path / "out").exists()


def test_pairs_are_the_images_and_their_seeded_degradation(shards, photos, crops, tmp_path, capsys):
    for given, name in ((shards, "a"), (photos, "b")):
        run("degrade", given, tmp_path / name, "--seed", 3)
        source = ImageSource(tmp_path / name)
        assert source.keys == [str(number) for number in range(6)]
        for number, crop in enumerate(crops):
            record, seed = source[number], degrade.degradation_seed(3, str(number))
            assert torch.equal(record.hq, crop) and record.metadata["degradation_seed"] == seed
            expected = TASKS["Real-ESRGAN"](crop[None], 1.0, [seed])[0]
            assert (record.lq - expected).abs().max() <= 0.5 / 255 + 1e-6
            assert (record.metadata["width"], record.metadata["height"]) == (80, 64)
        with Image.open(tmp_path / name / "pairs.png") as sheet:
            assert np.asarray(sheet).std() > 0
    assert ImageSource(tmp_path / "a").metadata_of(2)["seed"] == 2
    assert "broken.png: broken.png cannot be read" in capsys.readouterr().out


def test_only_selected_images_become_pairs_with_their_scores(shards, tmp_path):
    run("select", shards, tmp_path / "chosen", *OWN)
    kept = read_table(tmp_path / "chosen" / "selection.csv")
    run("degrade", shards, tmp_path / "pairs", "--selection", tmp_path / "chosen" / "selection.csv")
    pairs = ImageSource(tmp_path / "pairs")
    assert 0 < len(kept) < 6 and [pairs.metadata_of(i)["scores"] for i in range(len(pairs))] == list(kept.values())


def test_degrading_resumes_to_the_same_bytes_with_another_number_of_processes(shards, tmp_path, monkeypatch):
    run("degrade", shards, tmp_path / "one")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "one").glob("*.tar")}
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    run("degrade", shards, tmp_path / "many")
    assert [path.name for path in (tmp_path / "many").glob("*.tar")] == ["s1.tar"]
    (tmp_path / "many" / "s2.tar.partial").write_bytes(whole["s2.tar"][: len(whole["s2.tar"]) * 2 // 3])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        run("degrade", shards, tmp_path / "many")
    assert {path.name: path.read_bytes() for path in (tmp_path / "many").glob("*.tar*")} == whole


def test_a_folder_of_another_run_is_not_mixed_with_this_one(shards, tmp_path):
    run("degrade", shards, tmp_path / "out")
    with pytest.raises(SystemExit, match="out was begun with seed 0, not 1; give another output folder, or the same"):
        run("degrade", shards, tmp_path / "out", "--seed", 1)
    shutil.copy(shards / "s0.tar", shards / "s3.tar")
    (shards / "s0.tar").unlink()
    (shards / "s1.tar").unlink()
    with pytest.raises(SystemExit, match="was begun with source "):
        run("degrade", shards, tmp_path / "out")
    with pytest.raises(SystemExit, match="OUT_DIR is SOURCE"):
        run("degrade", shards, shards)


@pytest.mark.parametrize("given", [("2", "2"), ("x", "1"), ("-1", "1"), ("0", "0")])
def test_a_rank_that_cannot_be_is_refused(monkeypatch, given):
    for name, value in zip(("RANK", "WORLD_SIZE"), given):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"RANK {given[0]} of WORLD_SIZE {given[1]}; let torchrun set them"):
        work.Rank.here()


def test_work_comes_in_order_and_a_failure_is_passed_on():
    assert list(work.in_order(lambda n: n * n, range(50), workers=3)) == [n * n for n in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(work.in_order(lambda n: 1 / n, [1, 0, 1], workers=2))


def test_who_is_interrupted_waits_for_the_items_at_hand_alone():
    begun = []

    def slow(number):
        begun.append(number)
        time.sleep(0.3)
        return number

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in work.in_order(slow, range(100), workers=2):
            raise KeyboardInterrupt
    assert time.monotonic() - started < 1.5 and len(begun) <= 6


def test_a_score_that_was_changed_is_measured_again(shards, tmp_path):
    run("select", shards, tmp_path / "out", "--metrics", "niqe")
    first, scores = (tmp_path / "out" / "selection.csv").read_bytes(), tmp_path / "out" / "scores" / "s1.jsonl"
    for broken in (
        scores.read_text(encoding="utf-8").replace('"niqe": -', '"niqe": -1', 1),
        "[1, 2]\n5\nnull\n{}\n" + scores.read_text(encoding="utf-8"),
    ):
        scores.write_text(broken, encoding="utf-8")
        run("select", shards, tmp_path / "out", "--metrics", "niqe")
        assert (tmp_path / "out" / "selection.csv").read_bytes() == first


def test_the_sheet_of_the_dropped_shows_at_most_a_screenful(monkeypatch, shards, tmp_path):
    monkeypatch.setattr(selecting, "SHOWN", 1)
    run("select", shards, tmp_path / "out", "--keep", 0.5, *OWN)
    with Image.open(tmp_path / "out" / "dropped.png") as sheet:
        assert sheet.width < 300
