"""Any pyiqa metric as a verifier: a stand-in for the logic, the real package where it is installed."""

import sys
import time
import types

import pytest
import torch
from comfyui_fluxir.fluxir_core.verify.pretrained import VerifierFileError
from comfyui_fluxir.fluxir_core.verify.pyiqa_metric import PyIQAMetric
from torch import nn
from torch.nn import functional as F

from .public_layouts import images


class FakeMetric(nn.Module):
    """Brightness, or the distance to a reference; like pyiqa's, it refuses what is out of range."""

    def __init__(self, mode, lower_better):
        super().__init__()
        self.metric_mode, self.lower_better = mode, lower_better

    def forward(self, target, ref=None):
        assert target.isfinite().all() and target.min() >= 0 and target.max() <= 1 and target.shape[1] == 3
        if self.metric_mode == "FR":
            assert ref.shape == target.shape
            return (target - ref).abs().mean()[None]
        return target.mean()[None, None] + 1e-3 * torch.rand(1)


@pytest.fixture
def fake_pyiqa(monkeypatch, tmp_path):
    def create_metric(name, device):
        if name == "needs_hub":
            torch.hub.load_state_dict_from_url("https://example.org/needs_hub.pth", model_dir=str(tmp_path))
        if name == "needs_clip":
            import urllib.request

            urllib.request.urlopen("https://example.org/ViT-B-32.pt")
        if name == "needs_hugging_face":
            from huggingface_hub import hf_hub_download

            hf_hub_download("nobody/nothing", "weights.pth", cache_dir=tmp_path)
        if name == "needs_package":
            raise ModuleNotFoundError("No module named 'pkg_resources'")
        return FakeMetric("FR" if name == "apart" else "NR", lower_better=name in ("apart", "dark"))

    needs = ["needs_hub", "needs_clip", "needs_hugging_face", "needs_package"]
    fake = types.SimpleNamespace(create_metric=create_metric, list_models=lambda: ["apart", "bright", "dark", "fid", *needs])
    monkeypatch.setitem(sys.modules, "pyiqa", fake)


def test_pyiqas_sign_is_turned_and_nan_scores_last(fake_pyiqa):
    given = torch.stack([torch.full((3, 8, 80), level) for level in (0.2, 0.9, 0.5)])
    given[2, 0, 0, 0] = float("nan")
    bright, dark = PyIQAMetric("bright"), PyIQAMetric("dark")
    assert bright(given)[1] > bright(given)[0] and dark(given)[0] > dark(given)[1]
    assert bright(given)[2] == dark(given)[2] == -torch.inf
    assert bright.name == "pyiqa_bright" and isinstance(bright.module, nn.Module)


def test_pyiqas_draws_are_repeated_and_leave_the_generator_alone(fake_pyiqa):
    bright = PyIQAMetric("bright")
    state = torch.get_rng_state()
    assert torch.equal(bright(images()), bright(images()))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [(35, 75), (70, 150), (140, 300), (35, 300)])
def test_pyiqas_full_reference_metrics_see_the_reference_at_the_images_size(fake_pyiqa, size):
    apart = PyIQAMetric("apart")
    level = torch.tensor([0.25, 0.5])[:, None, None, None].expand(2, 3, 70, 150)
    scores = apart(level, torch.full((3, *size), 0.5))
    torch.testing.assert_close(scores, torch.tensor([-0.25, 0.0]), atol=1e-4, rtol=0)
    assert (apart(level, torch.full((3, *size), torch.nan)) == -torch.inf).all()
    with pytest.raises(ValueError, match="needs a reference; connect the degraded input"):
        apart(level)


@pytest.mark.parametrize(
    "name, kind, text",
    [
        ("needs_hub", VerifierFileError, r"not on disk: needs_hub\.pth belongs into .*, from https://example\.org"),
        ("needs_clip", VerifierFileError, r"ViT-B-32\.pt belongs into .*clip"),
        (
            "needs_hugging_face",
            VerifierFileError,
            r"not on disk; they belong into .*pyiqa or, from Hugging Face, into .*https://.*nobody/nothing",
        ),
        ("needs_package", ImportError, r"needs a package that is missing \(No module named 'pkg_resources'\)"),
        ("brigt", ValueError, r"'brigt' is no metric of single images in pyiqa; near it: bright"),
        ("fid", ValueError, "no metric of single images"),
    ],
)
def test_what_pyiqa_lacks_is_said_at_once(fake_pyiqa, name, kind, text):
    import huggingface_hub.constants as hub

    functions, started = (torch.hub.download_url_to_file, torch.hub.urlopen, hub.HF_HUB_OFFLINE), time.monotonic()
    with pytest.raises(kind, match=text):
        PyIQAMetric(name)
    assert time.monotonic() - started < 5
    assert functions == (torch.hub.download_url_to_file, torch.hub.urlopen, hub.HF_HUB_OFFLINE)


def test_without_pyiqa_the_way_to_it_and_its_license_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ImportError, match=r"pip install pyiqa \(its license is PolyForm-Noncommercial\)"):
        PyIQAMetric("musiq")


@pytest.mark.parametrize("name", ["psnr", "ssim", "piqe"])
def test_pyiqas_own_weightless_metrics(name):
    pytest.importorskip("pyiqa")
    metric, clean = PyIQAMetric(name), images(1, 96, 128)
    clean = F.interpolate(clean, scale_factor=2, mode="bicubic").clamp(0, 1)
    shown = torch.cat([clean, (clean + 0.3 * torch.randn(clean.shape)).clamp(0, 1), clean * float("nan")])
    good, bad, broken = metric(shown, clean[0])
    assert good > bad and broken == -torch.inf and bad.isfinite()
