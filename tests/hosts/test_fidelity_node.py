"""Restoration Fidelity and Invented Detail in the real ComfyUI of this process; the slider on the bundled miniature."""

import json

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.degrade.presets import degrade_named
from comfyui_fluxir.fluxir_core.image.files import load_image
from comfyui_fluxir.fluxir_core.image.invented_detail import heat_map, invented_detail
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.miniature import FOLDER as MINIATURE
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image

from .comfy_host import prompt, random_latent
from .search_host import baseline, run

SLIDER = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import fidelity

    return fidelity


@pytest.fixture(scope="module")
def degraded():
    """Two pieces of training photos, degraded, (2, 3, 96, 128)."""
    pieces = [load_photo(name)[100:196, 150:278] for name in ("astronaut", "coffee")]
    clean = [torch.from_numpy(piece.copy()).permute(2, 0, 1) / 255 for piece in pieces]
    return torch.stack([degrade_named(piece, "noise", seed) for seed, piece in enumerate(clean)])


@pytest.fixture(scope="module")
def miniature(comfy):
    """The bundled miniature as the nodes load it: (model, adapter, vae, conditioning)."""
    import comfy.sd
    import comfy.utils
    from comfyui_fluxir.nodes.adapter import EmptyPrompt, LoadFluxIRAdapter
    from comfyui_fluxir.nodes.folders import register_model_folders

    register_model_folders()
    adapter = LoadFluxIRAdapter.execute("mini-flux-fluxir.safetensors").result[0]
    model = comfy.sd.load_diffusion_model(str(MINIATURE / "diffusion_models" / "mini-flux.safetensors"))
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(MINIATURE / "vae" / "mini-flux-vae.safetensors")))
    return model, adapter, vae, EmptyPrompt.execute(adapter).result[0]


def guided(nodes, model, lq, fidelity):
    return nodes.RestorationFidelity.execute(model, {"samples": lq}, fidelity).result[0]


def rms(a, b):
    return (a - b).square().mean((1, 2, 3)).sqrt()


def test_the_higher_the_slider_the_nearer_to_the_input_on_the_miniature(nodes, miniature, degraded):
    import comfy.sample
    from comfyui_fluxir.nodes.adapter import ApplyFluxIRAdapter

    model, adapter, vae, conditioning = miniature
    with torch.inference_mode():
        lq = vae.encode(degraded.movedim(1, -1))
        restoring = ApplyFluxIRAdapter.execute(model, adapter, {"samples": lq}, 1.0, 0.0, 1.0).result[0]
        noise = comfy.sample.prepare_noise(lq, 0)
        ends = [
            comfy.sample.sample(
                guided(nodes, restoring, lq, fidelity),
                noise,
                4,
                1.0,
                "euler",
                "simple",
                conditioning,
                conditioning,
                torch.zeros_like(lq),
                disable_pbar=True,
                seed=0,
            )
            for fidelity in SLIDER
        ]
        images = [vae.decode(end).movedim(-1, 1) for end in (*ends, lq)]
    distances = torch.stack([rms(end, lq) for end in ends])
    assert (distances.diff(dim=0) < 0).all() and (distances[-1] < 1e-5).all(), distances
    seen = torch.stack([rms(one, images[-1]) for one in images[:-1]])
    assert (seen.diff(dim=0) < 0).all() and (seen[-1] < 1e-4).all() and (seen[0] > 0.01).all(), seen


def test_at_0_the_model_is_left_as_it_is(nodes, host):
    model = guided(nodes, host.model, random_latent(1), 0.0)
    assert "sampler_post_cfg_function" not in model.model_options
    assert torch.equal(host.sample(model), host.sample(host.model))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_at_1_every_sampler_gives_the_degraded_latent_back(nodes, host, sampler):
    import comfy.sample

    lq = random_latent(1)
    with torch.inference_mode():
        end = comfy.sample.sample(
            guided(nodes, host.model, lq, 1.0),
            random_latent(2),
            4,
            1.0,
            sampler,
            "simple",
            prompt(3),
            prompt(3),
            torch.zeros_like(lq),
            disable_pbar=True,
            seed=0,
        )
    torch.testing.assert_close(end, lq, atol=1e-5, rtol=1e-5)


def test_each_image_of_a_batch_is_drawn_to_its_own_input_or_all_to_one(nodes, host):
    noise, lq = random_latent(2, batch=2), random_latent(1, batch=2)
    both = host.sample(guided(nodes, host.model, lq, 0.5), noise=noise)
    alone = [host.sample(guided(nodes, host.model, lq[i : i + 1], 0.5), noise=noise[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)
    one = host.sample(guided(nodes, host.model, lq[:1], 0.5), noise=noise)
    torch.testing.assert_close(one[:1], both[:1], atol=1e-4, rtol=1e-4)
    assert (rms(one, lq[:1]) < rms(host.sample(host.model, noise=noise), lq[:1])).all()


def test_it_acts_after_what_other_nodes_have_hooked_in_and_with_cfg(nodes, host):
    seen, lq = [], random_latent(1)
    model = host.model.clone()
    model.set_model_sampler_post_cfg_function(lambda args: seen.append(1) or args["denoised"] * 0.5)
    held = guided(nodes, model, lq, 1.0)
    torch.testing.assert_close(host.sample(held, cfg=3.0, negative=prompt(9)), lq, atol=1e-5, rtol=1e-5)
    assert seen and len(model.model_options["sampler_post_cfg_function"]) == 1


def test_outside_a_noise_mask_the_image_stays_and_inside_it_is_drawn(nodes, host):
    latent, lq, mask = random_latent(5), random_latent(1), torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    end = host.sample(guided(nodes, host.model, lq, 1.0), latent=latent, noise_mask=mask)
    torch.testing.assert_close(end, torch.where(mask > 0, lq, latent), atol=1e-4, rtol=1e-4)


def test_a_search_looks_ahead_through_it(nodes, host, vae):
    from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch

    lq, latent = random_latent(1, batch=2), {"samples": torch.zeros(2, 16, 8, 8)}
    models = [guided(nodes, host.model, lq, fidelity) for fidelity in (0.0, 0.3, 1.0)]
    found = [run(host, vae, model=model, latent=latent, preset="quick") for model in models]
    distances = torch.stack([rms(best["samples"], lq) for best, _, _ in found])
    assert (distances.diff(dim=0) < 0).all() and (distances[-1] < 1e-4).all(), distances
    assert all(report["verifications"] > 4 for _, _, report in found)
    assert torch.equal(
        run(host, vae, model=models[1], latent=latent, search=EvolutionarySearch(1, 0))[0]["samples"],
        baseline(host, model=models[1], latent=latent),
    )


def test_wrong_inputs_are_refused_in_one_sentence(nodes, host):
    with pytest.raises(
        ValueError, match="^Restoration Fidelity: the degraded photo has 96 x 80 pixels but the sampled latent 64 x 64;"
    ):
        host.sample(guided(nodes, host.model, random_latent(1, 1, 10, 12), 0.5))
    with pytest.raises(ValueError, match=r"^Restoration Fidelity: 3 degraded latents for a sampled batch of 2; give one "):
        host.sample(guided(nodes, host.model, random_latent(1, 3), 0.5), noise=random_latent(2, 2))
    with pytest.raises(ValueError, match=r"^Restoration Fidelity: .* .its shape is \[1, 4, 8, 8\], but this model's latents "):
        guided(nodes, host.model, torch.zeros(1, 4, 8, 8), 0.5)

    class Diffusion:
        model = object()

        def get_model_object(self, _name):
            return object()

    with pytest.raises(ValueError, match="^Restoration Fidelity: .* another kind than flow matching; use a flow-"):
        guided(nodes, Diffusion(), random_latent(1), 0.5)


def test_both_hosts_give_the_same_image(nodes, host):
    import comfy.sample
    import comfy.sd
    import comfy.utils
    from comfyui_fluxir.nodes.adapter import EmptyPrompt
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer

    degraded = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    in_diffusers = Restorer(host.folder).restore(degraded, [5], steps=4, fidelity=0.4)
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(host.paths["vae"])))
        latent = vae.encode(degraded.movedim(1, -1))
        conditioning = EmptyPrompt.execute(host.adapter).result[0]
        model = guided(nodes, host.apply(lq=latent), latent, 0.4)
        restored = host.sample(model, noise=comfy.sample.prepare_noise(latent, 5), positive=conditioning)
        in_comfyui = vae.decode(restored).movedim(-1, 1)
    torch.testing.assert_close(in_comfyui, in_diffusers, rtol=0, atol=1e-3)
    assert not torch.allclose(in_diffusers, Restorer(host.folder).restore(degraded, [5], steps=4), atol=1e-2)


def test_the_command_line_has_the_slider(degraded, tmp_path):
    pixels = (degraded[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "in.png")

    def restored(fidelity, *more):
        options = ["--steps", "2", "--fidelity", str(fidelity), "--json", str(tmp_path / "report.json"), *more]
        main(["restore", str(tmp_path / "in.png"), str(tmp_path / "out.png"), *options])
        return load_image(tmp_path / "out.png")

    free, near, input = restored(0), restored(0.6), restored(1)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["fidelity"] == 1
    assert (near - input).square().mean() < (free - input).square().mean()
    assert torch.equal(restored(1, "--preset", "quick"), input)
    with pytest.raises(SystemExit, match="^fluxir restore: --fidelity is 1.5; use a value from 0 to 1.$"):
        restored(1.5)


def detail(nodes, restored, degraded):
    with torch.inference_mode():
        return nodes.InventedDetail.execute(restored, degraded).result


def test_the_map_is_the_core_functions_on_images(nodes, degraded):
    restored, inputs = degraded.movedim(1, -1), degraded.flip(0).movedim(1, -1)
    shown, mask = detail(nodes, restored, inputs)
    share = invented_detail(degraded, degraded.flip(0))
    torch.testing.assert_close(mask, share[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown, heat_map(share, degraded).movedim(1, -1), atol=1e-3, rtol=1e-3)
    assert shown.shape == restored.shape and shown.is_contiguous() and mask.mean() > 0.5
    alpha = torch.cat([restored, torch.rand(2, 96, 128, 1)], -1)
    assert torch.equal(detail(nodes, alpha, inputs[:1])[1][1:], detail(nodes, restored[1:], inputs[:1])[1])


def test_the_map_computes_on_comfyuis_device_after_asking_for_memory_and_can_be_interrupted(nodes, degraded, monkeypatch):
    images, freed = degraded.movedim(1, -1), []
    management = nodes.comfy.model_management
    monkeypatch.setattr(management, "free_memory", lambda *given: freed.append(given))
    detail(nodes, images, images)
    assert freed == [(nodes.COPIES * degraded[0].nbytes, management.get_torch_device())]
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        detail(nodes, images, images)


def test_what_has_no_map_is_refused_in_one_sentence(nodes, degraded):
    images = degraded.movedim(1, -1)
    with pytest.raises(ValueError, match="^Invented Detail: 2 degraded images for 1 restored ones; give one for"):
        detail(nodes, images[:1], images)
    broken = images.clone()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="^Invented Detail: restored holds NaN or infinity in image 2; "):
        detail(nodes, broken, images)
