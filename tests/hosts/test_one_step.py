"""What one-step restorers need: a start without noise, LoRAs as peft saves them on the model and on the VAE's encoder."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.lora.vae_names import encoder_module
from safetensors.torch import load_file, save_file

from .comfy_host import prompt, random, random_latent
from .search_host import guider

SIGMA = 0.5051
"""OMGSR-F's: index 244 of 999 on FLUX's grid of 1024 x 1024 pixels."""


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import few_steps, peft_lora

    return few_steps, peft_lora


@pytest.fixture(scope="module")
def loras(comfy, tmp_path_factory):
    import folder_paths

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
    return folder


# One Euler step from the degraded latent itself


def test_one_step_is_taken_from_the_degraded_latent_itself(host, nodes):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import ManualSigmas, Noise_EmptyNoise, SamplerCustomAdvanced

    calls = []

    def record(function, arguments):
        out = function(arguments["input"], arguments["timestep"], **arguments["c"])
        calls.append((arguments["input"].clone(), arguments["timestep"].clone(), out.clone()))
        return out

    model = host.model.clone()
    model.set_model_unet_function_wrapper(record)
    lq = random_latent(1, batch=2)
    (sigmas,) = ManualSigmas.execute(f"{SIGMA}, 0").result
    (start,) = nodes[0].NoisyStartLatent.execute(model, sigmas, {"samples": lq}).result
    with torch.inference_mode():
        euler = comfy.samplers.sampler_object("euler")
        found = SamplerCustomAdvanced.execute(Noise_EmptyNoise(), guider(model), euler, sigmas, start).result[0]["samples"]
    ((seen, timestep, clean),) = calls
    z = model.model.process_latent_in(lq)
    torch.testing.assert_close(seen, z, rtol=1e-5, atol=1e-5)
    assert timestep.tolist() == pytest.approx([SIGMA, SIGMA])
    # What a flow model gives core is z - sigma v: exactly the one step.
    torch.testing.assert_close(model.model.process_latent_in(found), clean, rtol=1e-5, atol=1e-5)
    assert (clean - z).abs().mean() > 0.1


# LoRAs on the model


def write_peft(folder, layers, alpha=6, rank=2, name="adapter_model.safetensors"):
    """Writes {module: (down, up)} as peft does."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for module, (down, up) in layers.items():
        weights[f"base_model.model.{module}.lora_A.weight"], weights[f"base_model.model.{module}.lora_B.weight"] = down, up
    save_file(weights, folder / name)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": alpha}), encoding="utf-8")


def layer(seed, inputs, outputs, rank=2):
    return 0.2 * random(seed, rank, inputs), 0.2 * random(seed + 1, outputs, rank)


def merged(host, folder, changes):
    """The tiny FLUX with `changes` {key: what is added} in its weights."""
    import comfy.sd

    weights = load_file(host.paths["diffusion_models"])
    save_file({key: value + changes.get(key, 0) for key, value in weights.items()}, folder / "merged.safetensors")
    return comfy.sd.load_diffusion_model(str(folder / "merged.safetensors"))


def padded(rows, start, height):
    out = torch.zeros(height, rows.shape[1])
    out[start : start + len(rows)] = rows
    return out


@pytest.mark.parametrize("names", ["BFL", "diffusers"])
def test_a_peft_lora_changes_the_model_as_if_it_were_merged(host, nodes, loras, tmp_path, names):
    down, up = layer(1, 128, 128)
    if names == "BFL":  # LucidNFT's lora_dit
        module, change = "double_blocks.1.img_attn.proj", {"double_blocks.1.img_attn.proj.weight": 3 * up @ down}
    else:  # OMGSR's flux_adapter
        module, change = "transformer_blocks.1.attn.to_k", {"double_blocks.1.img_attn.qkv.weight": padded(3 * up @ down, 128, 384)}
    write_peft(loras / names, {module: (down, up)})
    expected = host.sample(merged(host, tmp_path, change))
    changed = nodes[1].ApplyPEFTLoRA.execute(host.model, f"{names}/adapter_model.safetensors", 1.0).result[0]
    torch.testing.assert_close(host.sample(changed), expected, rtol=1e-3, atol=1e-3)
    before = host.sample(host.model)
    assert (expected - before).abs().mean() > 1e-2
    same = nodes[1].ApplyPEFTLoRA.execute(host.model, f"{names}/adapter_model.safetensors", 0.0).result[0]
    assert torch.equal(host.sample(same), before)


def test_a_lora_for_another_model_is_refused(host, nodes, loras):
    write_peft(loras / "sd", {"down_blocks.0.attentions.0.proj_in": layer(1, 8, 8)})
    with pytest.raises(ValueError, match="^Apply PEFT LoRA: adapter_model.safetensors changes down_blocks.*no part of this Flux;"):
        nodes[1].ApplyPEFTLoRA.execute(host.model, "sd/adapter_model.safetensors", 1.0)


# A LoRA on the VAE's encoder

TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0"]
"""OMGSR-F's."""

LDM = {
    "double_z": True,
    "z_channels": 16,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def vaes(comfy, loras):
    """diffusers' VAE of FLUX's kind with a LoRA merged into its encoder, and core's without."""
    import comfy.sd
    from diffusers import AutoencoderKL
    from peft import LoraConfig, PeftModel

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        latent_channels=16,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    core = comfy.sd.VAE(
        sd={key: value.clone() for key, value in vae.state_dict().items()},
        config={"params": {"ddconfig": LDM, "embed_dim": 16}},
        dtype=torch.float32,
    )
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False)
    vae.encoder = PeftModel(vae.encoder, config, adapter_name="vae_encoder_adapter")
    with torch.no_grad():
        for name, weight in vae.encoder.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.05)
    vae.encoder.save_pretrained(loras / "omgsr")
    vae.encoder = vae.encoder.merge_and_unload()
    return vae, core


def test_a_lora_on_the_encoder_encodes_as_diffusers_does_and_decodes_as_before(vaes, nodes):
    reference, core = vaes
    image = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(1))
    before, decoded = core.encode(image), core.decode(random_latent(3, 1, 4, 6))
    name = "omgsr/vae_encoder_adapter/adapter_model.safetensors"
    changed = nodes[1].ApplyVAELoRA.execute(core, name, 1.0).result[0]
    with torch.no_grad():
        expected = reference.encode(2 * image.movedim(-1, 1) - 1).latent_dist.mode()
    found = changed.encode(image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (found - before).abs().mean() > 1e-2
    assert torch.equal(core.encode(image), before)
    torch.testing.assert_close(changed.decode(random_latent(3, 1, 4, 6)), decoded)


def test_every_module_that_omgsr_changes_has_a_name_here(vaes):
    from peft import LoraConfig, get_peft_model

    reference, core = vaes
    keys = core.first_stage_model.state_dict()
    changed = get_peft_model(reference.encoder, LoraConfig(r=1, target_modules=TARGETS))
    names = [name.removesuffix(".lora_A.default.weight") for name, _ in changed.named_parameters() if "lora_A" in name]
    names = [name.removeprefix("base_model.model.") for name in names]
    changed.unload()
    assert len(names) > 20 and all(f"{encoder_module(name)}.weight" in keys for name in names)
    assert encoder_module("encoder.conv_in") == "encoder.conv_in" and encoder_module("decoder.conv_in") is None


def test_a_vae_of_another_kind_is_refused(vae, vaes, nodes):
    with pytest.raises(ValueError, match="^Apply VAE LoRA: omgsr/.* changes parts that this VAE lacks; choose the VAE"):
        nodes[1].ApplyVAELoRA.execute(vae, "omgsr/vae_encoder_adapter/adapter_model.safetensors", 1.0)


def test_one_step_with_everything_of_a_one_step_restorer(host, vaes, nodes, loras):
    """Encoder LoRA, model LoRA, start without noise, one step in tiles with half overlap: a finite image of the same size."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, SamplerCustomAdvanced
    from comfyui_fluxir.nodes.tiles import TileModel

    write_peft(loras / "flux_adapter", {"x_embedder": layer(1, 64, 128), "transformer_blocks.0.ff.net.2": layer(3, 512, 128)})
    encoder = nodes[1].ApplyVAELoRA.execute(vaes[1], "omgsr/vae_encoder_adapter/adapter_model.safetensors", 1.0).result[0]
    model = nodes[1].ApplyPEFTLoRA.execute(host.model, "flux_adapter/adapter_model.safetensors", 1.0).result[0]
    model = TileModel.execute(model, 64, 0.5).result[0]
    image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(1))
    sigmas = torch.tensor([SIGMA, 0.0])
    (start,) = nodes[0].NoisyStartLatent.execute(model, sigmas, {"samples": encoder.encode(image)}).result
    with torch.inference_mode():
        euler = comfy.samplers.sampler_object("euler")
        made = guider(model, prompt(3, guidance=1.0))
        found = SamplerCustomAdvanced.execute(Noise_EmptyNoise(), made, euler, sigmas, start).result[0]["samples"]
    assert found.shape == (1, 16, 12, 16) and torch.isfinite(found).all()
