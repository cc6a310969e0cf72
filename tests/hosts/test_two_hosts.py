"""ComfyUI and diffusers draw the same image from the same weights and the same noise."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents

from .comfy_host import Host, prompt, random_latent

SCALE, SHIFT = 0.3611, 0.1159  # FLUX's latents: network space is (z - shift) * scale


@pytest.fixture(scope="module", params=["after", "before"])
def host(request, comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp(f"hosts-{request.param}"), inject=request.param)


def sample_in_diffusers(folder, noise, lq, conditioning, steps):
    from comfyui_fluxir.training.diffusers_host.fluxir_host import FluxIRHost
    from comfyui_fluxir.training.diffusers_host.model_folder import load_models

    models = load_models(folder)
    [[text, extra]] = conditioning
    batch, grid = len(noise), noise.shape[-2:]
    host = FluxIRHost(models.transformer, models.adapter)
    with torch.no_grad():
        condition = host.prepare(
            pack_latents((lq - SHIFT) * SCALE),
            text.expand(batch, -1, -1),
            extra["pooled_output"].expand(batch, -1),
            image_ids(*grid),
        )
        guidance = torch.full((batch,), extra["guidance"])
        tokens = euler(lambda x, sigma: host.velocity(x, sigma, condition, guidance), pack_latents(noise), flux_sigmas(steps))
    return unpack_latents(tokens, *grid) / SCALE + SHIFT


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("prompt_tokens", [8, 12, 5], ids=["trained length", "longer", "shorter"])
def test_both_hosts_reach_the_same_latent(host, steps, prompt_tokens):
    noise, lq = random_latent(2, 2, 8, 12), random_latent(1, 2, 8, 12)
    conditioning = prompt(3, prompt_tokens, guidance=2.5)
    in_comfyui = host.sample(host.apply(lq=lq), noise=noise, positive=conditioning, steps=steps)
    in_diffusers = sample_in_diffusers(host.folder, noise, lq, conditioning, steps)
    torch.testing.assert_close(in_comfyui, in_diffusers, rtol=1e-4, atol=1e-4)
    bare = host.sample(host.model, noise=noise, positive=conditioning, steps=steps)
    assert (in_comfyui - bare).abs().mean() > 0.1  # so that the agreement is not that of two idle adapters


def test_fluxir_restore_and_the_graph_give_the_same_image(host):
    import comfy.sample
    import comfy.sd
    import comfy.utils
    from comfyui_fluxir.nodes.adapter import EmptyPrompt
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer

    degraded = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    in_diffusers = Restorer(host.folder).restore(degraded, [5], steps=4)
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(host.paths["vae"])))
        latent = vae.encode(degraded.movedim(1, -1))
        noise = comfy.sample.prepare_noise(latent, 5)
        conditioning = EmptyPrompt.execute(host.adapter).result[0]
        restored = host.sample(host.apply(lq=latent), noise=noise, positive=conditioning)
        in_comfyui = vae.decode(restored).movedim(-1, 1)
    torch.testing.assert_close(in_comfyui, in_diffusers, rtol=0, atol=1e-3)
