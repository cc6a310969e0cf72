"""Apply FluxIR Adapter while ComfyUI's own samplers run a native, tiny FLUX."""

import pytest
import torch

from .comfy_host import Host, prompt, random_latent


@pytest.fixture(scope="module")
def host(comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp("acting"))


@pytest.fixture(scope="module")
def initial(comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp("initial"), excitation=0)


# The adapter before training, and the adapter at strength 0, are the bare model


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("negative_tokens", [8, 12], ids=["joint", "separate"])
def test_the_initial_adapter_is_bit_identical_to_the_bare_model(initial, cfg, negative_tokens):
    options = dict(cfg=cfg, negative=prompt(9, negative_tokens))
    assert torch.equal(initial.sample(initial.apply(), **options), initial.sample(initial.model, **options))


def test_strength_zero_is_bit_identical_to_the_bare_model(host):
    assert torch.equal(host.sample(host.apply(strength=0.0), cfg=3.0), host.sample(host.model, cfg=3.0))


def test_the_adapter_and_its_degraded_image_change_the_result(host):
    bare = host.sample(host.model)
    results = [host.sample(host.apply()), host.sample(host.apply(lq=random_latent(7))), host.sample(host.apply(strength=0.5))]
    for index, result in enumerate(results):
        assert torch.isfinite(result).all()
        for other in [bare, *results[:index]]:
            assert (result - other).abs().mean() > 1e-3


def test_a_small_strength_is_near_the_bare_model(host):
    bare = host.sample(host.model)
    near, full = host.sample(host.apply(strength=0.01)), host.sample(host.apply())
    assert (near - bare).norm() < 0.1 * (full - bare).norm()


@pytest.mark.parametrize("inject", ["before", "after"])
def test_a_residual_is_added_before_or_after_its_own_block(comfy, tmp_path, inject):
    host = Host(tmp_path, inject=inject)
    network = host.adapter.patcher.model
    for layers in (network.se_image, network.se_text):
        for layer in list(layers)[1:]:  # only the first block has residuals
            torch.nn.init.zeros_(layer.excite.weight)
            torch.nn.init.zeros_(layer.excite.bias)
    seen = {}

    def watch(args, extra):
        index = args["transformer_options"]["block_index"]
        seen["into", index] = args["img"].clone()
        out = extra["original_block"](args)
        seen["out of", index] = out["img"].clone()
        return out

    model = host.model.clone()
    for index in range(2):
        model.set_model_patch_replace(watch, "dit", "double_block", index)
    host.sample(model, steps=1)
    bare = seen["into", 0]
    host.sample(host.apply(model), steps=1)
    assert torch.equal(seen["into", 0], bare) == (inject == "after")
    assert torch.equal(seen["into", 1], seen["out of", 0]) == (inject == "before")


# Guidance, batches and sizes


@pytest.mark.parametrize("negative_tokens", [8, 12], ids=["joint", "separate"])
def test_classifier_free_guidance_is_linear_in_the_two_restorations(host, negative_tokens):
    model, positive, negative = host.apply(), prompt(3), prompt(9, negative_tokens)
    one_step = dict(steps=1)
    cond = host.sample(model, positive=positive, **one_step)
    uncond = host.sample(model, positive=negative, **one_step)
    guided = host.sample(model, positive=positive, negative=negative, cfg=3.0, **one_step)
    torch.testing.assert_close(guided, uncond + 3.0 * (cond - uncond), rtol=1e-4, atol=1e-4)


def test_the_adapter_sees_the_guidance_of_the_conditioning(host, monkeypatch):
    seen = []
    network = host.adapter.patcher.model
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x, t, g, c: seen.append(g.tolist()) or forward(x, t, g, c))
    host.sample(host.apply(), positive=prompt(3, guidance=2.5), steps=1)
    assert seen == [[2.5]]


def test_every_image_of_a_batch_is_restored_from_its_own_degraded_image(host):
    noise, lq = random_latent(2, batch=2), random_latent(1, batch=2)
    together = host.sample(host.apply(lq=lq), noise=noise, cfg=3.0, negative=prompt(9))
    for row in range(2):
        alone = host.sample(host.apply(lq=lq[row : row + 1]), noise=noise[row : row + 1], cfg=3.0, negative=prompt(9))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_one_degraded_image_serves_a_whole_batch(host):
    noise = random_latent(2, batch=2)
    shared = host.sample(host.apply(), noise=noise)
    repeated = host.sample(host.apply(lq=random_latent(1).repeat(2, 1, 1, 1)), noise=noise)
    assert torch.equal(shared, repeated)


@pytest.mark.parametrize("size", [(7, 9), (8, 12)], ids=["odd", "wide"])
def test_any_latent_size_can_be_restored(host, initial, size):
    noise, lq = random_latent(2, 1, *size), random_latent(1, 1, *size)
    assert host.sample(host.apply(lq=lq), noise=noise).shape == noise.shape
    assert torch.equal(initial.sample(initial.apply(lq=lq), noise=noise), initial.sample(initial.model, noise=noise))


def test_a_mask_keeps_the_rest_of_the_image(host):
    mask, latent = torch.zeros(1, 1, 8, 8), random_latent(1)
    mask[..., 4:] = 1
    result = host.sample(host.apply(), latent=latent, noise_mask=mask)
    torch.testing.assert_close(result[..., :4], latent[..., :4], rtol=1e-4, atol=1e-4)
    assert (result[..., 4:] - host.sample(host.model, latent=latent, noise_mask=mask)[..., 4:]).abs().mean() > 1e-3


# What is computed once is keyed by what it depends on


class Forgetful(list):
    """A cache that never remembers."""

    def append(self, _):
        pass


def scheduled():
    """Two prompts of equal length, each for one half of sampling."""
    return prompt(3, start_percent=0.0, end_percent=0.5) + prompt(4, start_percent=0.5, end_percent=1.0)


@pytest.mark.parametrize(
    "options",
    [
        dict(negative=prompt(9), cfg=3.0),
        dict(negative=prompt(9, 12), cfg=3.0),
        dict(positive=scheduled()),
    ],
    ids=["joint", "separate", "scheduled"],
)
def test_reusing_prepared_embeddings_changes_nothing(host, options):
    model = host.apply()
    reused = host.sample(model, **options)
    host.injection(model)._prepared = Forgetful()
    assert torch.equal(host.sample(model, **options), reused)


def edit_text(c, call):
    c["c_crossattn"] = c["c_crossattn"] * call


def edit_pooled(c, call):
    c["y"] = c["y"] * call


def edit_positions(c, call):
    c["transformer_options"]["rope_options"] = {"scale_x": 1.0 + call}


@pytest.mark.parametrize("edit", [edit_text, edit_pooled, edit_positions])
def test_a_conditioning_edited_while_sampling_is_noticed(host, edit):
    calls = []

    def edited_call(apply_model, args):
        calls.append(1)
        edit(args["c"], len(calls))
        return apply_model(args["input"], args["timestep"], **args["c"])

    edited = host.model.clone()
    edited.set_model_unet_function_wrapper(edited_call)
    model = host.apply(edited)
    reused = host.sample(model)
    calls.clear()
    host.injection(model)._prepared = Forgetful()
    assert torch.equal(host.sample(model), reused)


@pytest.mark.parametrize("negative_tokens, calls", [(8, 1), (12, 2)], ids=["joint", "separate"])
def test_a_conditioning_is_prepared_once_per_run(host, monkeypatch, negative_tokens, calls):
    prepared = []
    network = host.adapter.patcher.model
    prepare = network.prepare
    monkeypatch.setattr(network, "prepare", lambda *args: prepared.append(1) or prepare(*args))
    host.sample(host.apply(), cfg=3.0, negative=prompt(9, negative_tokens))
    assert len(prepared) == calls


# The part of sampling in which the adapter acts


@pytest.mark.parametrize("start, end, acting", [(0.0, 1.0, 4), (0.0, 0.3, 2), (0.3, 1.0, 2), (0.1, 0.6, 2)])
def test_the_adapter_runs_only_between_start_and_end(host, monkeypatch, start, end, acting):
    sigmas = []
    network = host.adapter.patcher.model
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x, t, *args: sigmas.append(float(t[0])) or forward(x, t, *args))
    model = host.apply(start=start, end=end)
    host.sample(model)
    percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    assert all(percent_to_sigma(end) <= sigma <= percent_to_sigma(start) for sigma in sigmas)
    assert len(sigmas) == acting
