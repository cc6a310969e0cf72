"""What training exports is, in the real ComfyUI, the model that was trained."""

import pytest
import torch
import yaml
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from comfyui_fluxir.fluxir_core.image.files import save_image
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.diffusers_host.model_folder import open_transformer
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.recipes.config import RECIPES
from comfyui_fluxir.training.recipes.train import make_objective, make_trained

from .comfy_host import prompt, random_latent

SCALE, SHIFT = 0.3611, 0.1159


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        save_image(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(i)), folder / f"{i}.png")
    return folder


def train(host, photos, recipe, work, out):
    """A few steps of `recipe` on the host's weights, exported to `out` in float32; the objective with the trained weights."""
    values = {
        "base": {"folder": str(host.folder), "precision": "float32", "gradient_checkpointing": False},
        "data": {"images": str(photos), "buckets": ["64x64"], "text_tokens": 8, "held_out": 0},
        "adapter": {"rank": 4, **({"mode": {"attention": "joint"}} if recipe == "ummf" else {})},
        "recipe": {"guidance": 4.0} if recipe == "ummf" else {"pixel_crop": 4},
        "optimizer": {"learning_rate": 0.02, "average": 0.5},
        "run": {"steps": 3, "batch": 2, "micro_batch": 2},
        "log": [],
    }
    work.mkdir()
    (work / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    main(["train", recipe, "--config", str(work / "config.yaml"), "--work", str(work), "--out", str(work / "bf16.safetensors")])
    main(["export", str(work), str(out), "--weights", "last", "--dtype", "float32"])
    config = RECIPES[recipe].load(work / "config.yaml")
    trained = make_trained(config, open_transformer(host.folder), None)
    trained.adapter.load_state_dict(RunFolder(work).load()["adapter"])
    return make_objective(config, trained, None)


def velocity_in_training(objective, noise, lq):
    [[text, extra]] = prompt(3)
    tokens = pack_latents((lq - SHIFT) * SCALE)
    with torch.no_grad():
        condition = objective.host.prepare(tokens, text, extra["pooled_output"], image_ids(*lq.shape[-2:]))
        v = objective.host.velocity(pack_latents(noise), torch.ones(1), condition, torch.full((1,), 4.0))
    return unpack_latents(v, *lq.shape[-2:])


def velocity_in_comfyui(host, model, noise, positive=None):
    """One Euler step from sigma 1 to 0 gives z_0 = noise - v."""
    sampled = host.sample(model, noise=noise, positive=positive, steps=1)
    return noise - (sampled - SHIFT) * SCALE


def test_an_exported_adapter_gives_the_velocity_it_was_trained_to_give(host, photos, tmp_path):
    import folder_paths
    from comfyui_fluxir.nodes.adapter import ApplyFluxIRAdapter, LoadFluxIRAdapter
    from comfyui_fluxir.nodes.folders import ADAPTERS

    objective = train(host, photos, "fluxir", tmp_path / "work", tmp_path / "exported.safetensors")
    folder_paths.add_model_folder_path(ADAPTERS, str(tmp_path), is_default=True)
    folder_paths.filename_list_cache.clear()
    adapter = LoadFluxIRAdapter.execute("exported.safetensors").result[0]
    noise, lq = random_latent(2), random_latent(1)
    model = ApplyFluxIRAdapter.execute(host.model, adapter, {"samples": lq}, 1.0, 0.0, 1.0).result[0]
    found = velocity_in_comfyui(host, model, noise)
    torch.testing.assert_close(found, velocity_in_training(objective, noise, lq), rtol=1e-4, atol=1e-4)
    assert (found - velocity_in_comfyui(host, host.model, noise)).abs().mean() > 0.01  # three steps moved it


def test_an_exported_lora_gives_the_velocity_it_was_trained_to_give(host, photos, tmp_path):
    import folder_paths
    from comfyui_fluxir.nodes.ummf import ApplyUMMFLoRA, UMMFConditioning

    objective = train(host, photos, "ummf", tmp_path / "work", tmp_path / "exported-lora.safetensors")
    folder_paths.add_model_folder_path("loras", str(tmp_path), is_default=True)
    folder_paths.filename_list_cache.clear()
    noise, lq = random_latent(2), random_latent(1)
    model = ApplyUMMFLoRA.execute(host.model, "exported-lora.safetensors", 1.0).result[0]
    positive = UMMFConditioning.execute(prompt(3), {"samples": lq}).result[0]
    found = velocity_in_comfyui(host, model, noise, positive)
    torch.testing.assert_close(found, velocity_in_training(objective, noise, lq), rtol=1e-4, atol=1e-4)
    assert (found - velocity_in_comfyui(host, host.model, noise)).abs().mean() > 0.01
