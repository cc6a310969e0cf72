"""Apply FluxIR Adapter beside other packs' patches, LoRA, ControlNet and references, and what it leaves behind."""

import pytest
import torch
from safetensors.torch import load_file

from .comfy_host import Host, prompt, random, random_latent


@pytest.fixture(scope="module")
def host(comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp("acting"))


@pytest.fixture(scope="module")
def initial(comfy, tmp_path_factory):
    return Host(tmp_path_factory.mktemp("initial"), excitation=0)


def test_another_packs_block_replacement_still_runs(host, initial):
    def add_one(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + 1}

    for guest in (initial, host):
        other = guest.model.clone()
        other.set_model_patch_replace(add_one, "dit", "double_block", 0)
        other.set_model_patch_replace(add_one, "dit", "single_block", 1)
        results = [guest.sample(m) for m in (guest.model, other, guest.apply(), guest.apply(other))]
        assert torch.equal(results[3], results[1]) == (guest is initial)
        assert not torch.equal(results[3], results[2])
        assert set(other.model_options["transformer_options"]["patches_replace"]["dit"]) == {
            ("double_block", 0),
            ("single_block", 1),
        }


def test_tokens_that_another_pack_keeps_are_not_altered(host):
    kept = []

    def keep(args, extra):
        out = extra["original_block"](args)
        kept.append((out["img"], out["img"].clone()))
        return out

    model = host.model.clone()
    model.set_model_patch_replace(keep, "dit", "double_block", 1)
    model.set_model_patch_replace(keep, "dit", "single_block", 1)
    host.sample(host.apply(model), steps=1)
    assert len(kept) == 2 and all(torch.equal(tokens, copy) for tokens, copy in kept)


@pytest.mark.parametrize("order", ["lora first", "adapter first"])
def test_a_lora_acts_with_the_adapter_in_either_order(host, initial, order):
    import comfy.sd

    name = "diffusion_model.double_blocks.0.img_attn.proj"
    lora = {f"{name}.lora_up.weight": random(1, 128, 4), f"{name}.lora_down.weight": random(2, 4, 128)}

    def with_lora(model):
        return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]

    def both(guest):
        return guest.apply(with_lora(guest.model)) if order == "lora first" else with_lora(guest.apply())

    assert torch.equal(initial.sample(both(initial)), initial.sample(with_lora(initial.model)))
    assert not torch.allclose(host.sample(both(host)), host.sample(host.apply()))


def test_controlnet_residuals_add_to_the_adapters(host, initial):
    residual = random(4, 1, 16, 128)

    def with_control(model):
        def add_control(apply_model, args):
            control = {"input": [residual, None], "output": [None, residual]}
            return apply_model(args["input"], args["timestep"], **{**args["c"], "control": control})

        model = model.clone()
        model.set_model_unet_function_wrapper(add_control)
        return model

    assert torch.equal(initial.sample(initial.apply(with_control(initial.model))), initial.sample(with_control(initial.model)))
    assert not torch.allclose(host.sample(host.apply(with_control(host.model))), host.sample(host.apply()))


@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_the_initial_adapter_leaves_reference_latents_alone(initial, method):
    positive = prompt(3, reference_latents=[random_latent(5), random_latent(6, 1, 4, 8)], reference_latents_method=method)
    assert torch.equal(initial.sample(initial.apply(), positive=positive), initial.sample(initial.model, positive=positive))


def test_reference_tokens_receive_no_residual(host):
    before, after = {}, {}

    def watch(args, extra):
        block = (args["transformer_options"]["block_type"], args["transformer_options"]["block_index"])
        after[block] = args["img"].clone()
        out = extra["original_block"](args)
        before[block] = out["img"].clone()
        return out

    model = host.model.clone()
    for kind in ("double_block", "single_block"):
        for index in range(2):
            model.set_model_patch_replace(watch, "dit", kind, index)
    host.sample(host.apply(model), positive=prompt(3, reference_latents=[random_latent(5)]), steps=1)
    text, image = 8, 16
    moved = (after["double", 1] - before["double", 0])[0].abs().amax(-1)
    assert (moved[:image] > 0).all() and (moved[image:] == 0).all()
    moved = (after["single", 1] - before["single", 0])[0].abs().amax(-1)
    assert (moved[: text + image] > 0).all() and (moved[text + image :] == 0).all()


# The model afterwards, and its memory


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ["finished", "interrupted", "failed"])
def test_the_model_is_as_it_was(host, ending):
    import comfy.model_management

    weights = load_file(host.paths["diffusion_models"])
    expected = host.sample(host.model)
    model = host.apply()
    raised = {"interrupted": comfy.model_management.InterruptProcessingException, "failed": Stop}.get(ending)

    def callback(step, *_):
        if step == 1 and raised:
            raise raised()

    if raised:
        with pytest.raises(raised):
            host.sample(model, callback=callback)
    else:
        host.sample(model, callback=callback)
    assert not host.injection(model)._prepared
    assert "wrappers" not in host.model.model_options["transformer_options"]
    assert "patches_replace" not in model.model_options["transformer_options"]
    after = host.model.model.diffusion_model.state_dict()
    assert all(torch.equal(weights[name], after[name.replace("norm.weight", "norm.scale")]) for name in weights if name in after)
    assert torch.equal(host.sample(host.model), expected)


def test_comfyui_manages_the_adapters_weights(host):
    import comfy.model_management

    model = host.apply()
    assert [m.model for m in model.get_additional_models()] == [host.adapter.patcher.model]
    host.sample(model)
    assert any(m.model.model is host.adapter.patcher.model for m in comfy.model_management.current_loaded_models)
    assert len(host.apply(model, lq=random_latent(7)).get_additional_models()) == 1
    assert not host.model.get_additional_models()


def test_the_memory_estimate_covers_the_adapters_activations(host, monkeypatch):
    import comfy.sampler_helpers

    heights = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "estimate_memory",
        lambda model, shape, conds: heights.append(shape[2]) or estimate(model, shape, conds),
    )
    host.sample(host.model)
    host.sample(host.apply())
    assert heights == [8, 9]


# Refusals at sampling time


def test_a_degraded_latent_of_another_size_is_refused(host):
    with pytest.raises(ValueError, match="degraded photo has 128 x 64 pixels but the sampled latent 64 x 64; sample a latent of"):
        host.sample(host.apply(lq=random_latent(1, 1, 8, 16)))


def test_a_batch_of_degraded_latents_that_does_not_fit_is_refused(host):
    with pytest.raises(ValueError, match="3 degraded latents for a sampled batch of 2"):
        host.sample(host.apply(lq=random_latent(1, batch=3)), noise=random_latent(2, batch=2))
