"""LoRA files of this pack in other programs' loaders: the same velocity in diffusers, ComfyUI and by LoRA.delta."""

import logging

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.keymap import bfl_module, diffusers_parts
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents
from comfyui_fluxir.fluxir_core.lora.files import load_lora, save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA, linear_sizes, lora_targets
from comfyui_fluxir.fluxir_core.ummf.mode import OMINI
from comfyui_fluxir.training.diffusers_host.single_file import load_transformer
from comfyui_fluxir.training.diffusers_host.transformer import call_transformer, exact_time
from safetensors.torch import save_file

from .tiny import TINY, flux_weights


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    path = tmp_path_factory.mktemp("flux") / "flux.safetensors"
    save_file(flux_weights(), path)
    return path


def in_diffusers(flux):
    transformer = load_transformer(flux).eval().requires_grad_(False)
    exact_time(transformer)
    return transformer


@pytest.fixture
def transformer(flux):
    return in_diffusers(flux)


@pytest.fixture(scope="module")
def latent():
    return torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def prompt():
    generator = torch.Generator().manual_seed(2)
    return dict(
        t=torch.tensor([0.3, 0.97]),
        text=torch.randn(2, 5, 64, generator=generator),
        pooled=torch.randn(2, 32, generator=generator),
        guidance=torch.tensor([4.0, 2.5]),
    )


@pytest.fixture(params=["OminiControl's modules", "every module"])
def lora(request):
    """Ranks 1 to 3 and scales 0.5, 0.75, 1 by turns."""
    sizes = lora_targets(TINY) if "Omini" in request.param else linear_sizes(TINY)
    lora = LoRA({name: (*size, 1 + i % 3, 0.5 + i % 3 / 4) for i, (name, size) in enumerate(sizes.items())}, TINY)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return lora


@torch.no_grad()
def velocity(transformer, latent, prompt):
    return call_transformer(transformer, pack_latents(latent), image_ids=image_ids(8, 12), **prompt)


def by_hooks(transformer, lora, latent, prompt):
    """The velocity with LoRA.delta added to every Linear's output, a fused module's delta cut into its parts."""
    sizes, hooks = linear_sizes(TINY), []

    def hook(name, module, args, output):
        bfl = bfl_module(name)
        parts = diffusers_parts(bfl)
        delta = lora.delta(bfl, args[0])
        if delta is None:
            return output
        if name == "norm_out.linear":  # its halves trade places between the layouts
            return output + torch.cat(delta.chunk(2, -1)[::-1], -1)
        return output + delta.split([sizes[part][1] for part in parts], -1)[parts.index(name)]

    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            hooks.append(module.register_forward_hook(lambda *call, name=name: hook(name, *call)))
    result = velocity(transformer, latent, prompt)
    for handle in hooks:
        handle.remove()
    return result


def test_diffusers_loads_what_the_delta_says(tmp_path, transformer, lora, latent, prompt):
    save_lora(tmp_path / "lora.safetensors", lora, {"license": "Apache-2.0"}, OMINI)
    bare, expected = velocity(transformer, latent, prompt), by_hooks(transformer, lora, latent, prompt)
    transformer.load_lora_adapter(tmp_path, weight_name="lora.safetensors")
    torch.testing.assert_close(velocity(transformer, latent, prompt), expected, rtol=1e-5, atol=1e-5)
    assert (expected - bare).abs().mean() > 0.1


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_comfyui_loads_the_same_from_both_layouts(comfy, caplog, tmp_path, flux, transformer, lora, latent, prompt, layout):
    import comfy.utils

    path = tmp_path / "lora.safetensors"
    save_lora(path, lora, {}, OMINI, layout)
    model = comfy.sd.load_diffusion_model(str(flux))
    with caplog.at_level(logging.WARNING):
        patched, _ = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 1.0, 1.0)
    assert "not loaded" not in caplog.text.lower()
    changed = {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in patched.patches}
    assert changed == set(lora.bfl_modules)
    patched.patch_model()
    with torch.inference_mode():
        in_comfyui = patched.model.diffusion_model(
            latent, prompt["t"], prompt["text"], prompt["pooled"], prompt["guidance"], transformer_options={}
        )
    patched.unpatch_model()
    expected = by_hooks(transformer, lora, latent, prompt)
    torch.testing.assert_close(pack_latents(in_comfyui), expected, rtol=1e-4, atol=1e-4)


def spelled(lora, stem, down="lora_A.weight", up="lora_B.weight", alpha=True):
    """`lora`'s weights in another program's keys."""
    weights = {}
    for name in lora.shapes:
        layer, module = lora.layers[name.replace(".", "/")], stem(name)
        weights |= {f"{module}.{down}": layer.down.weight.detach(), f"{module}.{up}": layer.up.weight.detach()}
        if alpha:
            weights[f"{module}.alpha"] = torch.tensor(layer.scale * layer.down.out_features)
    return {key: value.clone() for key, value in weights.items()}


KOHYA = ("lora_down.weight", "lora_up.weight")
SPELLINGS = {
    "OneTrainer": (lambda name: f"lora_transformer_{name.replace('.', '_')}", *KOHYA),
    "LyCORIS": (lambda name: f"lycoris_{name.replace('.', '_')}", *KOHYA),
    "DiffSynth": (str, "lora_A.default.weight", "lora_B.default.weight"),
    "diffusers": (lambda name: f"transformer.{name}", "lora.down.weight", "lora.up.weight"),
    "old diffusers": (lambda name: f"transformer.{name}", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    "bare matrices": (lambda name: f"transformer.{name}", "lora_A", "lora_B"),
}


def in_comfyui(comfy, flux, weights, latent, prompt):
    """The velocity of core's FLUX with `weights` in its own LoRA loader."""
    model = comfy.sd.load_diffusion_model(str(flux))
    patched, _ = comfy.sd.load_lora_for_models(model, None, weights, 1.0, 1.0)
    assert patched.patches
    patched.patch_model()
    with torch.inference_mode():
        found = patched.model.diffusion_model(
            latent, prompt["t"], prompt["text"], prompt["pooled"], prompt["guidance"], transformer_options={}
        )
    patched.unpatch_model()
    return pack_latents(found)


def as_read(path):
    loaded = load_lora(path)
    lora = LoRA(loaded.shapes, TINY)
    lora.load_state_dict(loaded.state_dict)
    return lora


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_cores_loader_reads_is_read_the_same(comfy, tmp_path, flux, transformer, lora, latent, prompt, spelling):
    weights, path = spelled(lora, *SPELLINGS[spelling]), tmp_path / "lora.safetensors"
    save_file(weights, path)
    assert load_lora(path).report.unused == []
    ours = by_hooks(transformer, as_read(path), latent, prompt)
    torch.testing.assert_close(ours, by_hooks(transformer, lora, latent, prompt), rtol=1e-5, atol=1e-5)
    theirs = in_comfyui(comfy, flux, weights, latent, prompt)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_xlabs_processors_are_read_as_diffusers_reads_them(tmp_path, transformer, latent, prompt):
    """Keys of XLabs' (and USO's) LoRAs, of every attention in both kinds of blocks."""
    from diffusers import FluxPipeline

    generator, weights, hidden = torch.Generator().manual_seed(5), {}, TINY.hidden_size
    for block in range(2):
        kinds = [("double_blocks", f"{name}_lora{stream}") for stream in (1, 2) for name in ("qkv", "proj")]
        for blocks, name in [*kinds, ("single_blocks", "qkv_lora")]:
            for half, shape in (("down", (3, hidden)), ("up", ((3 if "qkv" in name else 1) * hidden, 3))):
                key = f"{blocks}.{block}.processor.{name}.{half}.weight"
                weights[key] = 0.1 * torch.randn(shape, generator=generator)
    save_file(weights, tmp_path / "lora.safetensors")
    assert load_lora(tmp_path / "lora.safetensors").report.unused == []
    ours = by_hooks(transformer, as_read(tmp_path / "lora.safetensors"), latent, prompt)
    theirs, _ = FluxPipeline.lora_state_dict(weights, return_alphas=True)
    transformer.load_lora_adapter(theirs)
    torch.testing.assert_close(ours, velocity(transformer, latent, prompt), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("saver", ["pipeline", "transformer"])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_alpha_in_diffusers_header_is_the_scale(tmp_path, flux, transformer, latent, prompt, saver, rslora):
    """peft's configuration: another alpha than the rank, and others yet for some modules."""
    from diffusers import FluxPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    config = LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=sorted(lora_targets(TINY)),
        alpha_pattern={"transformer_blocks.1.attn.to_q": 2, "x_embedder": 7},
        rank_pattern={"proj_out": 3},
        use_rslora=rslora,
    )
    transformer.add_adapter(config)
    torch.manual_seed(4)
    for name, weight in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    if saver == "transformer":
        transformer.save_lora_adapter(tmp_path)
    else:
        layers = get_peft_model_state_dict(transformer)
        stated = {k: list(v) if isinstance(v, set) else v for k, v in transformer.peft_config["default"].to_dict().items()}
        FluxPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=stated)
    expected = velocity(transformer, latent, prompt)
    ours = by_hooks(in_diffusers(flux), as_read(next(tmp_path.glob("*.safetensors"))), latent, prompt)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_lora_for_all_tokens_acts_in_whatever_spelling(comfy, tmp_path, flux, transformer, lora, latent, prompt):
    """Kontext's LoRAs as fal's trainer writes them, which core's own loader passes over."""
    from comfyui_fluxir.fluxir_core.lora.files import diffusers_weights

    path = tmp_path / "lora.safetensors"
    save_file(spelled(lora, lambda name: f"base_model.model.{name}"), path)
    ours = in_comfyui(comfy, flux, diffusers_weights(load_lora(path)), latent, prompt)
    torch.testing.assert_close(ours, by_hooks(transformer, lora, latent, prompt), rtol=1e-4, atol=1e-4)


def test_a_lora_trained_with_peft_and_saved_by_diffusers_is_read(tmp_path, flux, transformer, latent, prompt):
    """OminiControl's way: peft's adapter on the transformer, saved by FluxPipeline in one file without a mode."""
    from diffusers import FluxPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    names = sorted(lora_targets(TINY))
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=names, init_lora_weights="gaussian"))
    torch.manual_seed(4)
    for name, weight in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    FluxPipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(transformer))
    expected = velocity(transformer, latent, prompt)
    loaded = load_lora(next(tmp_path.glob("*.safetensors")))
    assert (loaded.mode, loaded.layout, sorted(loaded.shapes)) == (OMINI, "diffusers", names)
    lora = LoRA(loaded.shapes, TINY)
    lora.load_state_dict(loaded.state_dict)
    torch.testing.assert_close(by_hooks(in_diffusers(flux), lora, latent, prompt), expected, rtol=1e-5, atol=1e-5)
