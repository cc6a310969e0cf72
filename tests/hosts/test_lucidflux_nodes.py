"""LucidFlux's nodes while ComfyUI's own samplers run a native, tiny FLUX."""

import pytest
import torch

from .comfy_host import prompt, random, random_latent
from .lucidflux_host import CLOSE, by_the_paper, features, image
from .search_host import baseline, run

# What it does


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_flux_gets_the_papers_residuals_and_tokens(lucid, strength):
    expected = lucid.host.sample(by_the_paper(lucid, strength=strength), steps=2)
    torch.testing.assert_close(lucid.host.sample(lucid.apply(strength=strength), steps=2), expected, **CLOSE)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("negative_tokens", [8, 12], ids=["joint", "separate"])
def test_strength_zero_is_bit_identical_to_the_bare_model(lucid, cfg, negative_tokens):
    options = dict(cfg=cfg, negative=prompt(9, negative_tokens))
    assert torch.equal(lucid.host.sample(lucid.apply(strength=0.0), **options), lucid.host.sample(lucid.host.model, **options))


def test_every_input_matters(lucid):
    results = [
        lucid.host.sample(model)
        for model in (
            lucid.host.model,
            lucid.apply(),
            lucid.apply(degraded=image(4)),
            lucid.apply(cleaned=image(4)),
            lucid.apply(clip_vision=features(5)),
            lucid.apply(degraded=image(2), cleaned=image(1)),
        )
    ]
    for index, result in enumerate(results):
        assert torch.isfinite(result).all()
        assert all((result - other).abs().mean() > 1e-3 for other in results[:index])


@pytest.mark.parametrize("negative_tokens", [8, 12], ids=["joint", "separate"])
def test_classifier_free_guidance_is_linear_in_the_two_restorations(lucid, negative_tokens):
    model, positive, negative = lucid.apply(), prompt(3), prompt(9, negative_tokens)
    one_step = dict(steps=1)
    cond = lucid.host.sample(model, positive=positive, **one_step)
    uncond = lucid.host.sample(model, positive=negative, **one_step)
    guided = lucid.host.sample(model, positive=positive, negative=negative, cfg=3.0, **one_step)
    torch.testing.assert_close(guided, uncond + 3.0 * (cond - uncond), **CLOSE)


def test_every_image_of_a_batch_is_restored_from_its_own_images(lucid):
    noise = random_latent(2, batch=2)
    degraded, cleaned, seen = image(1, 2), image(2, 2), features(3, 2)
    options = dict(cfg=3.0, negative=prompt(9))
    together = lucid.host.sample(lucid.apply(None, degraded, cleaned, seen), noise=noise, **options)
    for row in range(2):
        own = {"last_hidden_state": seen["last_hidden_state"][row : row + 1]}
        model = lucid.apply(None, degraded[row : row + 1], cleaned[row : row + 1], own)
        alone = lucid.host.sample(model, noise=noise[row : row + 1], **options)
        torch.testing.assert_close(together[row : row + 1], alone, **CLOSE)


@pytest.mark.parametrize("size", [(7, 9), (8, 12)], ids=["odd", "wide"])
def test_any_latent_size_can_be_restored(lucid, size):
    noise, given = random_latent(2, 1, *size), image(1, 1, 8 * size[0], 8 * size[1])
    assert lucid.host.sample(lucid.apply(None, given, given), noise=noise).shape == noise.shape


def test_an_image_of_another_resolution_is_brought_to_the_sampled_one(lucid):
    small = image(1, 1, 32, 32)
    large = torch.nn.functional.interpolate(
        small.movedim(-1, 1), (64, 64), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)
    expected = lucid.host.sample(lucid.apply(degraded=large.movedim(1, -1)))
    torch.testing.assert_close(lucid.host.sample(lucid.apply(degraded=small)), expected, **CLOSE)


@pytest.mark.parametrize("start, end, acting", [(0.0, 1.0, 4), (0.0, 0.3, 2), (0.3, 1.0, 2)])
def test_it_acts_only_between_start_and_end(lucid, monkeypatch, start, end, acting):
    sigmas, network = [], lucid.lucidflux.patcher.model
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x, t, *args: sigmas.append(float(t[0])) or forward(x, t, *args))
    model = lucid.apply(start=start, end=end)
    lucid.host.sample(model)
    percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    assert all(percent_to_sigma(end) <= sigma <= percent_to_sigma(start) for sigma in sigmas) and len(sigmas) == acting


def test_what_does_not_change_is_computed_once_a_run(lucid, monkeypatch):
    prepared, network = [], lucid.lucidflux.patcher.model
    prepare = network.prepare
    monkeypatch.setattr(network, "prepare", lambda *args: prepared.append(1) or prepare(*args))
    lucid.host.sample(lucid.apply(), cfg=3.0, negative=prompt(9, 12))
    assert len(prepared) == 2  # a prompt each


# Beside others


def test_a_controlnets_residuals_add(lucid):
    residual = random(4, 1, 16, 128)

    def with_control(model, own):
        def call(function, arguments):
            return own(function, {**arguments, "c": {**arguments["c"], "control": {"input": [residual, None], "output": []}}})

        model = model.clone()
        model.set_model_unet_function_wrapper(call)
        return model

    def plain(function, arguments):
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    def added(function, arguments):
        control = arguments["c"]["control"]["input"]
        seen = by_the_paper(lucid).model_options["model_function_wrapper"]

        def sum_up(x, t, **c):
            both = [one if other is None else one + other for one, other in zip(c["control"]["input"], control)]
            return function(x, t, **{**c, "control": {"input": both, "output": []}})

        return seen(sum_up, arguments)

    expected = lucid.host.sample(with_control(lucid.host.model, added), steps=1)
    torch.testing.assert_close(lucid.host.sample(with_control(lucid.apply(), plain), steps=1), expected, **CLOSE)


@pytest.mark.parametrize("order", ["adapter first", "adapter last"])
def test_it_acts_together_with_the_fluxir_adapter(lucid, order):
    both = lucid.apply(lucid.host.apply()) if order == "adapter first" else lucid.host.apply(lucid.apply())
    results = [lucid.host.sample(model) for model in (both, lucid.apply(), lucid.host.apply())]
    assert torch.isfinite(results[0]).all() and all((results[0] - other).abs().mean() > 1e-3 for other in results[1:])


def test_reference_tokens_receive_no_residual(lucid):
    seen = {}

    def watch(args, extra):
        block = args["transformer_options"]["block_index"]
        seen["into", block] = args["img"].clone()
        out = extra["original_block"](args)
        seen["out of", block] = out["img"].clone()
        return out

    model = lucid.host.model.clone()
    for index in range(2):
        model.set_model_patch_replace(watch, "dit", "double_block", index)
    lucid.host.sample(lucid.apply(model), positive=prompt(3, reference_latents=[random_latent(5)]), steps=1)
    moved = (seen["into", 1] - seen["out of", 0])[0].abs().amax(-1)
    assert (moved[:16] > 0).all() and (moved[16:] == 0).all()


def test_restoration_fidelity_holds_it_at_the_input(lucid):
    from comfyui_fluxir.nodes.fidelity import RestorationFidelity

    degraded = random_latent(7)
    free, held = (RestorationFidelity.execute(lucid.apply(), {"samples": degraded}, fidelity).result[0] for fidelity in (0.0, 1.0))
    assert torch.equal(lucid.host.sample(free), lucid.host.sample(lucid.apply()))
    torch.testing.assert_close(lucid.host.sample(held), degraded, **CLOSE)


def test_a_search_finds_no_worse_than_the_baseline(lucid, vae):
    _, finalists, report = run(lucid.host, vae, lucid.apply())
    assert report["score"][0] >= report["baseline_score"][0] and len(finalists["samples"]) > 1
    torch.testing.assert_close(finalists["samples"][-1:], baseline(lucid.host, lucid.apply()), **CLOSE)


def test_an_attention_mask_lets_the_semantic_tokens_be_seen(lucid):
    """A mask that hides nothing changes nothing, and one that hides the text does, though the text is shorter than the sequence."""
    positive, hidden = prompt(3), torch.zeros(1, 24, 24)
    masked = [[positive[0][0], {**positive[0][1], "attention_mask": hidden, "attention_mask_img_shape": (4, 4)}]]
    expected = lucid.host.sample(lucid.apply(), positive=positive)
    torch.testing.assert_close(lucid.host.sample(lucid.apply(), positive=masked), expected, **CLOSE)
    hidden[:, 8:, :8] = -1e4
    assert (lucid.host.sample(lucid.apply(), positive=masked) - expected).abs().mean() > 1e-4


def test_seen_tokens_stand_behind_the_text(comfy):
    from comfyui_fluxir.nodes.lucidflux_hooks import with_seen_tokens

    mask = torch.arange(9.0).view(1, 3, 3) + 1
    grown = with_seen_tokens(mask, 2, 2)[0]
    assert grown.shape == (5, 5) and (grown[2:4] == 0).all() and (grown[:, 2:4] == 0).all()
    kept = grown[[0, 1, 4]][:, [0, 1, 4]]
    assert torch.equal(kept, mask[0]) and with_seen_tokens(mask > 9, 2, 1)[0, 2].all()
