"""`fluxir restore`, on tiny weights: what it refuses, and what it keeps of a file."""

import json

import numpy as np
import pytest
import torch
from comfyui_fluxir.tools.samples import SAMPLES
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.miniature import FOLDER as MINIATURE
from PIL import Image
from safetensors.torch import load_file, save_file

from .tiny import write_tiny


@pytest.fixture
def folder(tmp_path):
    """A tiny model folder with a degraded image in it."""
    write_tiny(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    return tmp_path


def restore(folder, name="in.png", out="out.png", *options):
    """Runs the command in `folder` in two steps; the path of its output."""
    main(["restore", str(folder / name), str(folder / out), "--model", str(folder), "--steps", "2", *options])
    return folder / out


@pytest.mark.parametrize(
    ("file", "key", "named"),
    [
        ("diffusion_models/mini-flux.safetensors", "img_in.weight", "base model or its adapter"),
        ("vae/mini-flux-vae.safetensors", "taesd_encoder.0.weight", "VAE's encoder"),
        ("vae/mini-flux-vae.safetensors", "taesd_decoder.19.weight", "VAE's decoder"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--preset", "best_of_n")])
def test_a_model_that_gives_nan_is_named_and_no_black_image_is_written(folder, file, key, named, options):
    weights = load_file(folder / file)
    weights[key].flatten()[0] = torch.nan
    save_file(weights, folder / file)
    with pytest.raises(SystemExit, match=f"^fluxir restore: --model: .*'s {named} gives NaN or infinity in float32; download"):
        restore(folder, "in.png", "out.png", *options)
    assert not (folder / "out.png").exists()


def shown(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_what_a_file_held_is_kept_where_the_format_can(folder, capsys):
    exif = Image.Exif()
    exif[0x0132], exif[0x0112], exif[0x8769] = "2020:01:01 00:00:00", 6, {0x9003: "2019:12:31 23:59:59", 0x927C: b"maker"}
    clear = Image.open(folder / "in.png").convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "clear.png", exif=exif, dpi=(300, 300))
    for suffix in ("png", "webp", "tif", "avif"):
        found = shown(restore(folder, "clear.png", f"out.{suffix}"))
        kept = found.getexif()
        assert found.size == (40, 72), "turned upright"
        assert kept[0x0132] == "2020:01:01 00:00:00" and kept.get_ifd(0x8769)[0x9003] == "2019:12:31 23:59:59"
        assert 0x0112 not in kept or kept[0x0112] == 1
        assert 0x927C not in kept.get_ifd(0x8769)
        wanted = np.asarray(clear.getchannel("A").transpose(Image.Transpose.ROTATE_270), int)
        assert np.abs(np.asarray(found.getchannel("A"), int) - wanted).max() <= (0 if suffix != "avif" else 4)
    assert shown(folder / "out.png").info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert capsys.readouterr().out == ""


def test_what_is_under_transparent_parts_is_not_seen_and_on_white_the_result_is_the_restored_one(folder):
    """Colors of clear pixels are noise of the editor's; over white the result shows what was restored over white."""
    pixels = np.asarray(Image.open(folder / "in.png"))
    alpha = np.zeros((40, 72, 1), np.uint8)
    alpha[:, 36:] = 255
    for name, hidden in (("a.png", 0), ("b.png", 255)):
        Image.fromarray(np.concatenate([np.where(alpha > 0, pixels, hidden), alpha], 2)).save(folder / name)
    one, other = (np.asarray(shown(restore(folder, name, f"out-{name}"))) for name in ("a.png", "b.png"))
    assert (one == other).all() and (one[:, :36, 3] == 0).all() and (one[:, :36, :3] == 255).all()
    flat = np.where(alpha > 0, pixels, 255).astype(np.uint8)
    Image.fromarray(flat).save(folder / "flat.png")
    assert (np.asarray(shown(restore(folder, "flat.png", "out-flat.png")))[:, 36:] == one[:, 36:, :3]).all()


@pytest.mark.parametrize(
    ("name", "out", "remark"),
    [
        ("clear.png", "out.jpg", ".jpg holds no transparency, so it lies on white"),
        ("dated.jpg", "out.bmp", ".bmp holds no EXIF data, so it is left out"),
        ("deep.png", "out.png", "its 16 bits a channel become 8"),
        ("moving.gif", "out.png", "only the first of its 2 frames is used"),
        ("pages.tif", "out.tif", "only the first of its 3 frames is used"),
        (
            "odd.png",
            "out.png",
            "its color profile cannot be used (it is broken, or of a kind that is not known), so its colors are taken as sRGB",
        ),
    ],
)
def test_what_cannot_be_kept_is_named_in_one_line(folder, capsys, name, out, remark):
    image, exif = Image.open(folder / "in.png"), Image.Exif()
    exif[0x0132] = "2020:01:01 00:00:00"
    clear = image.convert("RGBA")
    clear.putalpha(90)
    clear.save(folder / "clear.png")
    image.save(folder / "dated.jpg", exif=exif)
    image.save(folder / "odd.png", icc_profile=b"odd")
    Image.fromarray(np.full((40, 72), 30000, np.uint16)).save(folder / "deep.png")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(180)])
    image.save(folder / "pages.tif", save_all=True, append_images=[image, image])
    restore(folder, name, out)
    assert capsys.readouterr().out == f"{folder / name}: {remark}.\n"


def test_an_image_too_large_for_its_format_is_refused_before_it_is_restored(folder, monkeypatch):
    from comfyui_fluxir.training.commands import restore as command

    monkeypatch.setattr(command, "_Job", lambda *_: pytest.fail("it computed"))
    Image.new("RGB", (5000, 16)).save(folder / "wide.png")
    with pytest.raises(SystemExit, match="out.webp holds at most 16383 pixels a side, not 20000 x 64; use .png or .tif"):
        restore(folder, "wide.png", "out.webp", "--scale", "4")


def test_jpeg_is_written_at_quality_95_with_all_its_color(folder):
    with Image.open(restore(folder, "in.png", "out.jpg")) as image:
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3
        assert max(image.quantization[0]) <= 12


@pytest.fixture
def images(folder):
    """A folder of images in folders, with two that cannot be read."""
    place, pixels = folder / "images", np.asarray(Image.open(folder / "in.png"))
    (place / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.jpg", "deep/er/c.gif")):
        Image.fromarray(np.roll(pixels, 9 * number, 1)).save(place / name)
    (place / "broken.png").write_bytes(b"no image")
    (place / "deep" / "empty.tif").touch()
    (place / "notes.txt").write_text("text", encoding="utf-8")
    return place


def test_a_folder_is_restored_into_a_folder_as_each_image_alone(folder, images, capsys):
    restore(folder, "images", "out", "--json", str(folder / "report.json"))
    said, results = capsys.readouterr().out, {path.relative_to(folder / "out") for path in (folder / "out").rglob("*.*")}
    results = {str(path) for path in results if not path.name.startswith((".", "fluxir"))}
    assert results == {"a.png", "deep/b.jpg", "deep/er/c.gif.png"}
    assert "skipped 2:" in said and "broken.png cannot be read as an image (it is of no known format)" in said
    assert "deep/empty.tif cannot be read" in said
    alone = restore(folder, "images/a.png", "alone.png")
    assert alone.read_bytes() == (folder / "out" / "a.png").read_bytes()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [len(report[name]) for name in ("restored", "skipped")] == [3, 2]


def test_a_folder_is_resumed_and_an_interrupted_image_is_made_again(folder, images, capsys, monkeypatch):
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer

    whole, calls, own = restore(folder, "images", "whole"), [], Restorer.restore

    def interrupted(self, *given, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return own(self, *given, **options)

    monkeypatch.setattr(Restorer, "restore", interrupted)
    with pytest.raises(SystemExit, match="fluxir restore: stopped"):
        restore(folder, "images", "out")
    assert [path.name for path in (folder / "out").glob("*.*") if path.suffix in (".png", ".jpg")] == ["a.png"]
    capsys.readouterr()
    restore(folder, "images", "out")
    assert "1 of 5 images are in" in capsys.readouterr().out and len(calls) == 4
    for path in whole.rglob("*.*"):
        if path.suffix in (".png", ".jpg"):
            assert (folder / "out" / path.relative_to(whole)).read_bytes() == path.read_bytes()
    restore(folder, "images", "out")
    assert len(calls) == 4
    with pytest.raises(SystemExit, match="out was begun with seed 0, not 1; give another output folder, or the same settings"):
        restore(folder, "images", "out", "--seed", "1")


def test_several_processes_share_a_folder(folder, images, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (images / "broken.png").unlink()
    for rank, results in (("0", {"a.png"}), ("1", {"a.png", "b.jpg", "c.gif.png"})):
        monkeypatch.setenv("RANK", rank)
        restore(folder, "images", "out")
        assert {path.name for path in (folder / "out").rglob("*.*") if path.suffix in (".png", ".jpg")} == results


def test_an_image_for_which_memory_runs_out_is_skipped_and_named(folder, images, monkeypatch, capsys):
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer

    def full(*_given, **_options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Restorer, "restore", full)
    with pytest.raises(SystemExit, match="none of 5 images could be restored; see the reasons above"):
        restore(folder, "images", "out")
    assert "a.png: memory ran out; restore it with --tile" in capsys.readouterr().out


def test_a_folder_without_images_is_refused(folder):
    (folder / "none").mkdir()
    with pytest.raises(SystemExit, match="IN: .*none holds no image .*; give another folder"):
        restore(folder, "none", "out")
    with pytest.raises(SystemExit, match="OUT: .*in.png is a file; give a folder"):
        restore(folder, "none", "in.png")


def test_a_prompt_needs_text_encoders_and_changes_the_result(folder, tmp_path):
    with pytest.raises(SystemExit, match="has no text encoders for the prompt 'a red house'"):
        restore(folder, "in.png", "out.png", "--prompt", "a red house")
    if not list(MINIATURE.glob("*/*.safetensors")):
        pytest.skip("the miniature's words need its weights")
    command = ["restore", str(folder / "in.png"), "--steps", "2", "--model", "miniature"]
    for name, prompt in (("none", ""), ("one", "red scene"), ("same", "red scene"), ("two", "photo")):
        main([*command[:2], str(folder / f"{name}.png"), *command[2:], "--prompt", prompt])
    none, one, same, two = ((folder / f"{name}.png").read_bytes() for name in ("none", "one", "same", "two"))
    assert one == same and len({none, one, two}) == 3


def test_a_search_chooses_by_the_verifiers_that_are_named(folder):
    options = ("--preset", "best_of_n", "--json", str(folder / "report.json"))
    restore(folder, "in.png", "out.png", *options, "--verifiers", "niqe", "coherent_gradient")
    assert set(json.loads((folder / "report.json").read_text(encoding="utf-8"))["finalist_scores"]) >= {"niqe", "coherent_gradient"}
    for verifiers, sentence in (
        (["beauty"], "the metric beauty is missing"),
        (["clip_score"], "--verifiers clip_score compares the image with a text; add --prompt"),
        (["clip_score", "--prompt", "a house"], "is missing; put it into .*fluxir_verifiers/clip-vit-large-patch14"),
        (["aesthetic"], "is missing; put it into .*fluxir_verifiers"),
        (["image_reward", "--prompt", "a house"], "is missing; put it into .*fluxir_verifiers/ImageReward"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            restore(folder, "in.png", "no.png", *options, "--verifiers", *verifiers)
    with pytest.raises(SystemExit, match="--verifiers goes with a search; add --preset"):
        restore(folder, "in.png", "no.png", "--verifiers", "niqe")
    assert not (folder / "no.png").exists()


def test_detail_that_the_vae_loses_is_given_back(tmp_path):
    with Image.open(SAMPLES / "fluxir_dogs_original.jpg") as photo:
        photo.crop((230, 270, 350, 400)).save(tmp_path / "in.png")
    given = np.asarray(shown(tmp_path / "in.png"), float)

    def error(strength):
        """Of the restored image, held to the photo as far as the VAE can."""
        out, report = tmp_path / f"{strength}.png", tmp_path / "report.json"
        options = ["--steps", "1", "--fidelity", "1", "--give-back", str(strength), "--json", str(report)]
        main(["restore", str(tmp_path / "in.png"), str(out), *options])
        assert json.loads(report.read_text(encoding="utf-8"))["give_back"] == strength
        return np.sqrt(np.square(np.asarray(shown(out), float) - given).mean())

    none, half, all_of_it = error(0.0), error(0.5), error(1.0)
    assert all_of_it < half < none and all_of_it < 0.6 * none
