"""Measuring restorations: one image, a batch's table, and folders by `fluxir eval`; pyiqa is stood in for."""

import csv
import math
import os
import sys
import types

import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur
from comfyui_fluxir.fluxir_core.image.files import save_image
from comfyui_fluxir.fluxir_core.image.quality import quality
from comfyui_fluxir.fluxir_core.verify.evaluation import PAPER, Evaluation, markdown
from comfyui_fluxir.fluxir_core.verify.fidelity import downsampled_psnr
from comfyui_fluxir.fluxir_core.verify.niqe import NIQE
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.commands import evaluate
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image
from torch import nn


class FakeMetric(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.metric_mode, self.lower_better = ("FR", True) if name == "lpips" else ("NR", False)

    def forward(self, target, ref=None):
        return (target.mean() if ref is None else (target - ref).abs().mean())[None]


@pytest.fixture
def fake_pyiqa(monkeypatch, tmp_path):
    """pyiqa with the weights of LPIPS and MUSIQ on disk, and of no other of the papers' metrics."""

    def create_metric(name, device):
        if name in ("maniqa", "clipiqa+"):
            torch.hub.load_state_dict_from_url(f"https://example.org/{name}.pth", model_dir=str(tmp_path / "hub"))
        return FakeMetric(name)

    fake = types.SimpleNamespace(create_metric=create_metric, list_models=lambda: [*PAPER])
    monkeypatch.setitem(sys.modules, "pyiqa", fake)


@pytest.fixture(scope="module")
def photo():
    """A photo (3, 96, 128), in steps of 8 bits."""
    return torch.from_numpy(load_photo("coffee")[100:292:2, 150:406:2].copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def folders(photo, tmp_path):
    """LQ, OUT and HQ with images `a` and `b`; the degraded are half as large and JPEG files."""
    lq, out, hq = (tmp_path / name for name in ("lq", "out", "hq"))
    for folder in (lq, out, hq):
        folder.mkdir()
    for name, image in {"a": photo, "b": photo.flip(2)}.items():
        save_image(nn.functional.avg_pool2d(image, 2), lq / f"{name}.jpg")
        save_image(gaussian_blur(image, 1), out / f"{name}.png")
        save_image(image, hq / f"{name}.png")
    return lq, out, hq


def run(*arguments):
    main(["eval", *map(str, arguments)])


def table_of(path):
    with path.open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture
def measured(monkeypatch):
    """The sizes of the images that were measured, and not taken from a CSV, as they come."""
    seen, call = [], Evaluation.__call__
    monkeypatch.setattr(Evaluation, "__call__", lambda self, *given: seen.append(given[0].shape) or call(self, *given))
    return seen


# One image


def test_values_are_the_packs_own_measures_in_their_published_sign(photo):
    blurred, small = gaussian_blur(photo, 1), nn.functional.avg_pool2d(photo, 2)
    values = Evaluation(())(blurred, small, photo)
    expected = {name: value.item() for name, value in quality(blurred[None], photo[None]).items()}
    expected |= {"niqe": -NIQE()(blurred[None]).item(), "closeness": downsampled_psnr(blurred[None], small).item()}
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert list(values) == Evaluation(()).names()


def test_every_value_tells_the_original_from_a_blurred_and_moved_one_in_the_direction_it_says(photo):
    evaluation = Evaluation(())
    good, bad = evaluation(photo, photo, photo), evaluation(gaussian_blur(photo, 2).roll(3, 1), photo, photo)
    assert all((good[name] < bad[name]) == evaluation.lower_is_better(name) for name in good)
    assert good["drift"] < 0.05 and bad["drift"] == pytest.approx(3, abs=0.3)


def test_what_lacks_a_partner_is_not_measured(photo):
    evaluation = Evaluation(())
    alone = {"niqe", "coherent_gradient", "spectral_slope"}
    assert set(evaluation(photo)) == alone == set(evaluation.names(degraded=False, original=False))
    assert set(evaluation(photo, photo)) == alone | {"closeness", "drift"} == set(evaluation.names(original=False))


def test_pyiqas_metrics_keep_their_sign_and_compare_with_the_original(fake_pyiqa, photo):
    evaluation, dark = Evaluation(("lpips", "musiq")), photo * 0.5
    values = evaluation(dark, photo, photo)
    assert values["lpips"] == pytest.approx((photo - dark).mean().item()) and evaluation.lower_is_better("lpips")
    assert values["musiq"] == pytest.approx(dark.mean().item()) and not evaluation.lower_is_better("musiq")
    assert "lpips" not in evaluation(dark, photo) and "musiq" in evaluation(dark)


def test_missing_weights_and_libraries_are_named_and_skipped(fake_pyiqa, photo, monkeypatch):
    evaluation = Evaluation(originals=False)
    assert set(evaluation.metrics) == {"musiq"} and set(evaluation.skipped) == {"lpips", "maniqa", "clipiqa+"}
    assert "maniqa.pth belongs into" in evaluation.skipped["maniqa"] and "original" in evaluation.skipped["lpips"]
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setitem(sys.modules, "piq", None)
    evaluation = Evaluation()
    assert set(evaluation.skipped) == {"psnr", "ssim", "gmsd", *PAPER}
    assert "pip install pyiqa" in evaluation.skipped["musiq"] and "pip install piq" in evaluation.skipped["psnr"]
    assert set(evaluation(photo, None, photo)) == {"niqe", "coherent_gradient", "spectral_slope"}


def test_a_wrong_name_is_no_missing_file(fake_pyiqa):
    with pytest.raises(ValueError, match="'musik' is no metric of single images in pyiqa; near it: musiq"):
        Evaluation(("musik",))
    with pytest.raises(ValueError, match=r"^niqe is measured in any case; name only further metrics of pyiqa, such as "):
        Evaluation(("niqe",))


def test_a_metric_without_a_number_gives_nan_and_stays_out_of_the_table(fake_pyiqa, photo, monkeypatch):
    monkeypatch.setattr(FakeMetric, "forward", lambda self, *_: torch.full((1,), torch.nan))
    evaluation = Evaluation(("lpips", "musiq"))
    values = evaluation(photo, None, photo)
    assert math.isnan(values["musiq"]) and math.isnan(values["lpips"]) and "musiq" not in markdown([values], evaluation)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ((3, 64, 80), None, (3, 64, 81)),
            "the original has 81 x 64 pixels and the restored image 80 x 64; bring them to one size.",
        ),
        (
            ((3, 64, 80), (3, 80, 64)),
            "the restored image has 80 x 64 pixels and the degraded one 64 x 80, another shape; give images of the same scene.",
        ),
        (((3, 31, 80),), "the restored image has 80 x 31 pixels; give at least 32 a side."),
        (((64, 80),), r"the restored image has the shape \(64, 80\); give \(3, H, W\)."),
    ],
)
def test_images_that_do_not_belong_together_are_refused_in_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Evaluation(())(*(shape and torch.rand(shape) for shape in given))


def test_nan_is_refused_by_the_images_name(photo):
    with pytest.raises(ValueError, match=r"^the degraded image holds NaN or infinity; give one without\.$"):
        Evaluation(())(photo, photo * torch.nan)


def test_the_table_of_several_has_mean_and_range_and_names_what_is_skipped(fake_pyiqa):
    evaluation = Evaluation(("musiq", "maniqa"))
    table = markdown([{"musiq": 1.0, "gmsd": 0.25}, {"musiq": 4.0, "gmsd": math.nan}], evaluation)
    assert "| musiq ↑ | 2.5 | 1 | 4 | 2 |" in table and "| gmsd ↓ | 0.25 | 0.25 | 0.25 | 1 |" in table
    assert "\n\n- maniqa skipped: maniqa's weights are not on disk" in table
    assert markdown([{"musiq": 1.0}], Evaluation(("musiq",))) == "| metric | value |\n|---|---|\n| musiq ↑ | 1 |"


# Folders


def test_folders_give_a_table_a_csv_and_a_plot(fake_pyiqa, folders, tmp_path, capsys):
    run(*folders, "--csv", tmp_path / "t.csv", "--plot", tmp_path / "t.png")
    said, table = capsys.readouterr().out, table_of(tmp_path / "t.csv")
    assert "| psnr ↑ |" in said and "| lpips ↓ |" in said and "- maniqa skipped: " in said
    assert set(table) == {"a", "b"} and float(table["a"]["psnr"]) == pytest.approx(float(table["b"]["psnr"]), abs=0.2)
    evaluation = Evaluation(("lpips", "musiq"))
    assert Image.open(tmp_path / "t.png").size[1] == evaluate.ROW * (1 + len(evaluation.names()))
    assert not list(tmp_path.glob("*.partial"))


def test_without_originals_the_full_reference_ones_are_left_out(fake_pyiqa, folders, capsys):
    run(*folders[:2])
    said = capsys.readouterr().out
    assert "psnr" not in said and "| closeness ↑ |" in said and "- lpips skipped: it compares with the original" in said


def test_no_names_after_metrics_leaves_what_needs_no_weights(fake_pyiqa, folders, capsys):
    run(*folders, "--metrics")
    assert "musiq" not in capsys.readouterr().out
    run(*folders, "--metrics", "musiq")
    said = capsys.readouterr().out
    assert "| musiq ↑ |" in said and "lpips" not in said


def test_a_second_run_measures_only_what_is_new_or_changed(folders, tmp_path, measured, photo):
    given = (*folders, "--metrics", "--csv", tmp_path / "t.csv")
    run(*given)
    first = table_of(tmp_path / "t.csv")
    run(*given)
    assert len(measured) == 2 and table_of(tmp_path / "t.csv") == first
    save_image(photo.flip(2), folders[1] / "b.png")
    run(*given)
    assert len(measured) == 3 and table_of(tmp_path / "t.csv")["a"] == first["a"]
    assert float(table_of(tmp_path / "t.csv")["b"]["psnr"]) > float(first["b"]["psnr"])
    os.utime(folders[2] / "a.png", ns=(0, 0))  # a changed original counts too
    run(*given)
    assert len(measured) == 4


def test_what_is_not_read_whole_is_named(folders, capsys):
    lq, out, hq = folders
    with Image.open(out / "a.png") as image:
        image.save(out / "a.tif", save_all=True, append_images=[image])
    (out / "a.png").unlink()
    run(lq, out, hq, "--metrics")
    assert f"- {out / 'a.tif'}: only the first of its 2 frames is used.\n" in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_it_measured(folders, tmp_path, measured, monkeypatch):
    given, load = (*folders, "--metrics", "--csv", tmp_path / "t.csv"), evaluate.read_image

    def interrupted(path):
        if path.stem == "b":
            raise KeyboardInterrupt
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "read_image", interrupted)
        with pytest.raises(SystemExit, match="stopped"):
            run(*given)
    assert set(table_of(tmp_path / "t.csv")) == {"a"}
    run(*given)
    assert len(measured) == 2 and set(table_of(tmp_path / "t.csv")) == {"a", "b"}


def test_an_added_metric_is_measured_and_one_left_out_stays_in_the_csv(fake_pyiqa, folders, tmp_path, measured):
    path = tmp_path / "t.csv"
    for metrics, expected in (((), 2), (("musiq",), 4), ((), 4)):
        run(*folders, "--csv", path, "--metrics", *metrics)
        assert len(measured) == expected
    assert all(row["musiq"] and row["psnr"] for row in table_of(path).values())


def test_rows_of_other_images_stay_and_are_not_in_the_means(folders, tmp_path, capsys):
    run(*folders, "--metrics", "--csv", tmp_path / "t.csv")
    (folders[1] / "b.png").unlink()
    capsys.readouterr()
    run(*folders, "--metrics", "--csv", tmp_path / "t.csv")
    said = capsys.readouterr().out
    assert set(table_of(tmp_path / "t.csv")) == {"a", "b"}
    assert "| metric | value |" in said and "has no restored image of b." in said


def test_images_without_a_partner_or_that_cannot_be_measured_are_reported_and_the_rest_is_measured(folders, photo, capsys):
    lq, out, hq = folders
    save_image(photo, out / "c.png")
    save_image(photo[:, :64], lq / "d.png")
    save_image(photo, out / "d.png")
    (hq / "a.png").unlink()
    run(*folders, "--metrics")
    said = capsys.readouterr().out
    assert "has no degraded image of c." in said and "has no original of a, d." in said
    assert "- d is not measured: the restored image has 128 x 96 pixels and the degraded one 128 x 64" in said
    assert "| 2 |" in said.split("niqe")[1].splitlines()[0] and "| 1 |" in said.split("psnr")[1].splitlines()[0]


def test_a_strip_has_better_to_the_right():
    evaluation = Evaluation(())
    (low,), (high,) = ([{"gmsd": value, "psnr": value}] for value in (0.0, 1.0))
    sheet = evaluate.strip_plot([low, low, high], evaluation)
    right = evaluate.LABEL + evaluate.NUMBER + evaluate.FIELD
    mean = [x for x in range(right) if sheet.getpixel((x, evaluate.ROW * 1 + evaluate.ROW // 2 - 8)) == evaluate.LINE]
    other = [x for x in range(right) if sheet.getpixel((x, evaluate.ROW * 2 + evaluate.ROW // 2 - 8)) == evaluate.LINE]
    middle = right - evaluate.FIELD / 2
    assert mean and other and max(mean) < middle < min(other)  # both are mostly low: bad of psnr, good of gmsd


def only(folder, *names):
    """`folder` with images of these names alone."""
    for path in folder.iterdir():
        path.unlink()
    for name in names:
        save_image(torch.rand(3, 64, 64), folder / name)
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lq, out, hq: (lq / "no", out), "no is no folder; give one with images."),
        (lambda lq, out, hq: (lq.parent, out), r"holds no image \(.*\.png.*\); give another folder."),
        (lambda lq, out, hq: (lq, out, "--csv", __file__), "--csv: .* is not a table of fluxir eval; name another file."),
        (
            lambda lq, out, hq: (lq, out, "--csv", lq / "no" / "t.csv"),
            "--csv: the folder of .* is missing; make it or name another.",
        ),
        (lambda lq, out, hq: (lq, out, "--plot", lq / "t.jpg"), r"--plot: .*t\.jpg is no PNG file; let it end in .png."),
        (
            lambda lq, out, hq: (lq, only(out, "z.png")),
            "no image in .* is named as one in .*; name each result as its input, any suffix.",
        ),
        (lambda lq, out, hq: (lq, only(out, "z.png", "z.jpg")), r"z\.jpg and z\.png in .* share a name; take one of them out."),
    ],
)
def test_errors_are_one_sentence(folders, change, sentence):
    with pytest.raises(SystemExit, match=f"^fluxir eval: .*{sentence}$"):
        run(*change(*folders), "--metrics")


def test_when_nothing_can_be_measured_the_command_fails_after_the_reasons(folders, capsys):
    for path in folders[1].iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SystemExit, match="none of 2 images could be measured; see the reasons above"):
        run(*folders, "--metrics")
    assert "a is not measured: " in capsys.readouterr().out
