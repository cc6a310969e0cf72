"""UMMF's recipe and its rivals learn; a LoRA that was trained restores and searches."""

import pytest
import torch
from safetensors.torch import load_file

from comfyui_fluxir.fluxir_core.adapter import ConditionMode, LoRA
from comfyui_fluxir.training.base_model import flux_dimensions
from comfyui_fluxir.training.fusion import AdditionHost, ControlNetHost
from comfyui_fluxir.training.host import call_transformer
from comfyui_fluxir.training.miniature.autoencoder import NarrowTAESD, narrowed, widen
from comfyui_fluxir.training.model_folder import load_models
from comfyui_fluxir.training.ummf import UMMFObjective, UMMFRecipe
from comfyui_fluxir.training.ummf_host import UMMFHost

from ..unit.tiny_training import FlatPictures, flow_error, run, tiny_host

PRODIGY = {"name": "prodigy", "learning_rate": 1.0, "warmup": 0, "decay": 0.0}


def ummf(host):
    return UMMFObjective(host, UMMFRecipe(drop_image=0.0, guidance=4.0))


@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_the_lora_learns_to_read_the_picture(tmp_path, attention):
    transformer = tiny_host().transformer
    host = UMMFHost(transformer, LoRA.new(flux_dimensions(transformer), 4), ConditionMode(attention=attention))
    before = flow_error(host)
    trained = run(tmp_path, 80, ummf(host), optimizer=PRODIGY)
    assert flow_error(host, trained) < 0.9 * before
    up = [value for name, value in trained.items() if name.endswith("up.weight")]
    # All but what follows the last block's attention, where FLUX drops the condition, and its queries' norms.
    assert sum(bool(value.any()) for value in up) >= len(up) - 4


def test_the_bundled_autoencoder_is_narrowed_exactly():
    torch.manual_seed(0)
    net = NarrowTAESD()
    for (name, one), other in zip(net.state_dict().items(), narrowed(widen(net)).state_dict().values()):
        assert torch.equal(one, other), name
    from comfyui_fluxir.training.model_folder import MINIATURE

    (vae,) = (MINIATURE / "vae").glob("*.safetensors")
    bundled, whole = narrowed(load_file(vae)), load_models("miniature").vae
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(bundled.encode(picture), whole.encode(picture), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [lambda t: AdditionHost(t, 4), lambda t: ControlNetHost(t, 1, 1)], ids=["addition", "controlnet"])
def test_the_papers_rivals_start_as_the_bare_model_and_learn(tmp_path, make):
    transformer = tiny_host().transformer
    rival = make(transformer)
    batch, t = FlatPictures()(0, range(8)), torch.full((8,), 0.5)
    bare = call_transformer(transformer, batch.clean, t, batch.text, batch.pooled, batch.image_ids, torch.full((8,), 4.0))
    with torch.no_grad():
        condition = rival.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        first = rival.velocity(batch.clean, t, condition, torch.full((8,), 4.0))
    torch.testing.assert_close(first, bare, rtol=1e-5, atol=1e-5)
    before = flow_error(rival)
    assert flow_error(rival, run(tmp_path, 80, ummf(rival), optimizer=PRODIGY)) < 0.9 * before
