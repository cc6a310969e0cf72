"""LucidFlux on diffusers: its host, `fluxir convert`, and `fluxir restore --adapter lucidflux`."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.image.files import load_image, save_image
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.model import LucidFlux
from comfyui_fluxir.fluxir_core.lucidflux.schedule import lucidflux_sigmas
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.diffusers_host.lucidflux_host import LucidFluxHost
from comfyui_fluxir.training.diffusers_host.restorer import Restorer
from comfyui_fluxir.training.diffusers_host.transformer import call_transformer
from safetensors import safe_open
from safetensors.torch import save_file

from ..unit import lucidflux_reference as reference
from .lucidflux_host import SIZES
from .tiny import write_tiny

CLOSE = dict(rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def weights():
    return reference.random_weights(**SIZES)


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """A model folder of random weights, as `load_lucidflux_models` takes it, with two photos."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder)
    content = {}
    for key, value in weights.items():
        part, _, name = key.partition(".")
        content.setdefault(part, {})[name] = value
    torch.save(content, folder / "lucidflux.pth")
    generator = torch.Generator().manual_seed(1)
    prompt = {
        "txt": torch.randn(1, 7, 64, generator=generator),
        "vec": torch.randn(1, 32, generator=generator),
        "prompt": "restore",
    }
    torch.save(prompt, folder / "prompt_embeddings.pt")
    out = folder / "lucidflux" / "lucidflux_whole.safetensors"
    main(["convert", str(folder / "lucidflux.pth"), str(out), "--prompt", str(folder / "prompt_embeddings.pt")])
    torch.manual_seed(0)
    size = dict(hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16)
    SiglipVisionModel(SiglipVisionConfig(**size)).save_pretrained(folder / "siglip")
    for seed, name in enumerate(("degraded", "cleaned")):
        save_image(torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(seed)), folder / f"{name}.png")
    return folder


# The host


def network(weights, tmp_path):
    save_file(weights, tmp_path / "lucidflux.safetensors")
    loaded = load_lucidflux(tmp_path / "lucidflux.safetensors")
    built = LucidFlux(loaded.config)
    built.load_state_dict(loaded.state_dict)
    return built.eval().requires_grad_(False)


def test_the_transformer_gets_the_papers_residuals_and_tokens(weights, transformer, given, tmp_path):
    from comfyui_fluxir.fluxir_core.flux.tokens import unpack_latents

    generator = torch.Generator().manual_seed(2)
    degraded, cleaned = torch.rand(2, 2, 3, 64, 64, generator=generator)
    seen = torch.randn(2, 10, 12, generator=generator)
    host = LucidFluxHost(transformer, network(weights, tmp_path), strength=0.7)
    shown = host.prepare(degraded, cleaned, seen, given["text"], given["pooled"], given["image_ids"])
    found = host.velocity(given["tokens"], given["t"], shown, given["guidance"])
    x = unpack_latents(given["tokens"], 8, 8)
    images = (2 * degraded - 1, 2 * cleaned - 1)
    residuals = reference.residuals(weights, x, *images, given["text"], given["pooled"], given["t"], given["guidance"], blocks=2)
    text = torch.cat([given["text"], reference.semantic_tokens(weights, seen)], 1)
    expected = call_transformer(
        transformer, **{**given, "text": text}, controlnet_block_samples=[0.7 * residual for residual in residuals]
    )
    torch.testing.assert_close(found, expected, **CLOSE)


def test_strength_zero_is_the_bare_transformer(weights, transformer, given, tmp_path):
    host = LucidFluxHost(transformer, network(weights, tmp_path), strength=0.0)
    shown = host.prepare(*torch.rand(2, 2, 3, 64, 64), torch.randn(2, 10, 12), given["text"], given["pooled"], given["image_ids"])
    bare = call_transformer(transformer, **given)
    assert torch.equal(host.velocity(given["tokens"], given["t"], shown, given["guidance"]), bare)


# The restorer


def test_the_two_hosts_restore_the_same_image(folder, comfy):
    """diffusers and ComfyUI from one file, one noise and one schedule."""
    import comfy.sd
    import folder_paths
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFlux, LoadLucidFlux
    from comfyui_fluxir.nodes.stored_prompt import LoadStoredPrompt
    from transformers import SiglipVisionModel

    restorer = Restorer(folder, adapter="lucidflux")
    degraded, cleaned = (load_image(folder / f"{name}.png")[None][..., :32, :48] for name in ("degraded", "cleaned"))
    found = restorer.restore(degraded, [3], steps=3, cleaned=cleaned)
    square = torch.nn.functional.interpolate(cleaned, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        pixels = 2 * (255 * square).round() / 255 - 1
        seen = SiglipVisionModel.from_pretrained(folder / "siglip").eval()(pixel_values=pixels).last_hidden_state

    folder_paths.add_model_folder_path("model_patches", str(folder / "lucidflux"), is_default=True)
    lucidflux = LoadLucidFlux.execute("lucidflux_whole.safetensors").result[0]
    model = comfy.sd.load_diffusion_model(str(folder / "diffusion_models" / "mini-flux.safetensors"))
    images = (image.movedim(1, -1) for image in (degraded, cleaned))
    model = ApplyLucidFlux.execute(model, lucidflux, *images, {"last_hidden_state": seen}, 1.0, 0.0, 1.0).result[0]
    (prompt,) = LoadStoredPrompt.execute("lucidflux_whole.safetensors", 4.0).result
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompt, prompt)
    guider.set_cfg(1.0)
    sigmas = lucidflux_sigmas(3, 32, 48)
    latent = {"samples": torch.zeros(1, 16, 4, 6)}
    with torch.inference_mode():
        euler = comfy.samplers.sampler_object("euler")
        sampled = SamplerCustomAdvanced.execute(Noise_RandomNoise(3), guider, euler, sigmas, latent).result[0]["samples"]
    network_space = model.model.process_latent_in(sampled)
    decoded = restorer.vae.decode(network_space.clone()).clamp(0, 1)
    torch.testing.assert_close(found, decoded, rtol=1e-3, atol=1e-3)


def test_a_tile_that_holds_everything_is_the_whole(folder):
    from comfyui_fluxir.fluxir_core.execution.tiles import TiledRun

    restorer = Restorer(folder, adapter="lucidflux")
    degraded, cleaned = (load_image(folder / f"{name}.png")[None] for name in ("degraded", "cleaned"))
    whole = restorer.restore(degraded, [3], steps=2, cleaned=cleaned)
    assert torch.equal(restorer.restore(degraded, [3], steps=2, cleaned=cleaned, tile=TiledRun(64, 2)), whole)
    tiled = restorer.restore(degraded, [3], steps=2, cleaned=cleaned, tile=TiledRun(4, 2))
    assert tiled.shape == whole.shape and (tiled - whole).abs().mean() > 1e-4


# The commands


def run(folder, *options):
    main(["restore", str(folder / "degraded.png"), str(folder / "out.png"), "--model", str(folder), "--steps", "2", *options])


def test_restore_writes_an_image_and_says_how(folder):
    options = ("--adapter", "lucidflux", "--cleaned", str(folder / "cleaned.png"), "--json", str(folder / "report.json"))
    run(folder, *options, "--scale", "2")
    assert load_image(folder / "out.png").shape == (3, 80, 112)
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["adapter"] == "lucidflux"
    run(folder, *options, "--preset", "best_of_n")
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["preset"] == "best_of_n"


@pytest.mark.parametrize("options", [("--adapter", "lucidflux"), ("--cleaned", "x.png")])
def test_restore_asks_for_the_cleaned_image(folder, options):
    with pytest.raises(SystemExit, match="--cleaned goes with --adapter lucidflux, and lucidflux with it; give both or neither"):
        run(folder, *options)


def test_converting_keeps_the_prompt_and_its_words(folder):
    with safe_open(folder / "lucidflux" / "lucidflux_whole.safetensors", "pt") as file:
        assert {"prompt.text", "prompt.pooled"} <= set(file.keys())
        assert file.metadata()["prompt"] == "restore" and file.metadata()["kind"] == "lucidflux"


def test_converting_to_fp8_keeps_biases_and_convolutions(folder, tmp_path):
    main(["convert", str(folder / "lucidflux.pth"), str(tmp_path / "small.safetensors"), "--precision", "fp8"])
    before, after = load_lucidflux(folder / "lucidflux.pth").state_dict, load_lucidflux(tmp_path / "small.safetensors").state_dict
    for key, value in after.items():
        assert value.dtype == (torch.float8_e4m3fn if value.ndim == 2 else before[key].dtype)
        torch.testing.assert_close(value.float(), before[key].float(), rtol=0.07, atol=0.01)


def test_converting_merges_lucidnft(folder, tmp_path):
    from .lucidflux_host import write_lora

    deltas = write_lora(tmp_path / "lora_condition")
    lora = str(tmp_path / "lora_condition" / "adapter_model.safetensors")
    main(["convert", str(folder / "lucidflux.pth"), str(tmp_path / "nft.safetensors"), "--lora", lora])
    before, after = load_lucidflux(folder / "lucidflux.pth").state_dict, load_lucidflux(tmp_path / "nft.safetensors").state_dict
    for key, value in after.items():
        torch.testing.assert_close(value, before[key] + deltas.get(key, 0))


def test_a_folder_without_an_image_encoder_is_refused(folder, tmp_path):
    for name in ("diffusion_models", "vae", "lucidflux"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(ValueError, match="siglip holds no image encoder; put SigLIP 2 so400m patch16-512 there"):
        Restorer(tmp_path, adapter="lucidflux")
