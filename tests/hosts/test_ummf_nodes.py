"""UMMF's nodes in the real ComfyUI: the same as core's references, as diffusers, and undone afterwards."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from comfyui_fluxir.fluxir_core.flow.rectified_flow import euler, flux_sigmas
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from comfyui_fluxir.fluxir_core.lora.files import save_lora
from comfyui_fluxir.fluxir_core.lora.lora import LoRA
from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT, OMINI, ConditionMode

from .comfy_host import prompt, random_latent
from .test_ummf_diffusers import random_lora
from .tiny import TINY

ALONE = ConditionMode(attention="alone")
MODES = {"kontext": KONTEXT, "omini": OMINI, "alone": ALONE}
SCALE, SHIFT = 0.3611, 0.1159


@pytest.fixture(scope="module")
def nodes(host):
    from comfyui_fluxir.nodes import ummf

    return ummf


@pytest.fixture(scope="module")
def loras(host, tmp_path_factory):
    """Names of LoRA files of every mode, and of one whose output is zero, in ComfyUI's folder."""
    import folder_paths

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
    for name, mode in MODES.items():
        save_lora(folder / f"ummf-{name}.safetensors", random_lora(), {}, mode)
        save_lora(folder / f"zero-{name}.safetensors", LoRA.new(TINY, 4), {}, mode)
    beside = replace(KONTEXT, tokens="condition")
    save_lora(folder / "zero-beside.safetensors", LoRA.new(TINY, 4), {}, beside)
    for attention, images in product(("joint", "alone"), ("joint", "apart")):
        mode = replace(beside, attention=attention, images=images)
        save_lora(folder / f"zero-{attention}-{images}.safetensors", LoRA.new(TINY, 4), {}, mode)
    save_lora(folder / "ummf-apart.safetensors", random_lora(), {}, ConditionMode(images="apart"))
    folder_paths.filename_list_cache.clear()
    return folder


def conditioned(nodes, lq=None, positive=None, **options):
    lq = random_latent(1) if lq is None else lq
    return nodes.UMMFConditioning.execute(positive or prompt(3), {"samples": lq}, **options).result[0]


def applied(nodes, host, name, strength=1.0):
    return nodes.ApplyUMMFLoRA.execute(host.model, f"{name}.safetensors", strength).result[0]


def injection(nodes, model):
    return model.callbacks["on_cleanup"][nodes.KEY][-1].__self__


@pytest.fixture
def computed(monkeypatch):
    """How many images' keys and values were computed, by call."""
    from comfyui_fluxir.fluxir_core.ummf.condition_stream import ConditionBranch

    rows, remember = [], ConditionBranch.remember

    def counted(self, tokens, *rest):
        rows.append(len(tokens))
        return remember(self, tokens, *rest)

    monkeypatch.setattr(ConditionBranch, "remember", counted)
    return rows


def test_without_a_lora_the_conditioning_is_cores_reference(host, nodes):
    import node_helpers

    theirs = node_helpers.conditioning_set_values(prompt(3), {"reference_latents": [random_latent(1)]}, append=True)
    shown = host.sample(host.model, positive=conditioned(nodes))
    assert torch.equal(shown, host.sample(host.model, positive=theirs))
    assert (shown - host.sample(host.model)).abs().mean() > 0.01


def test_our_stream_is_cores_own_way_with_references(host, nodes, loras):
    """A strength of next to 1 takes our way, exactly 1 takes core's."""
    ours = host.sample(host.model, positive=conditioned(nodes, strength=1 + 1e-7))
    torch.testing.assert_close(ours, host.sample(host.model, positive=conditioned(nodes)), rtol=1e-4, atol=1e-5)


REFERENCES = [random_latent(1, 1, 8, 8), random_latent(9, 1, 5, 8), random_latent(10, 1, 4, 12)]


def referenced(count, method=None, strength=1.0):
    """A prompt with `count` reference latents from core's own keys, at a strength of our node's hook."""
    import comfy.hooks
    import node_helpers
    from comfyui_fluxir.nodes.ummf_hooks import strength_hook

    values = {"reference_latents": REFERENCES[:count]} | ({"reference_latents_method": method} if method else {})
    made = node_helpers.conditioning_set_values(prompt(3), values)
    return made if strength == 1 else comfy.hooks.set_hooks_for_conditioning(made, strength_hook(strength))


METHODS = [None, "offset", "index", "uxo"]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_references_lie_where_core_puts_them_at_any_strength(host, nodes, loras, method, count):
    """Our hook at next to 1, and our stream in a mode that is Kontext's but for a LoRA of zeros, against core's own way."""
    core = host.sample(host.model, positive=referenced(count, method))
    hooked = host.sample(host.model, positive=referenced(count, method, 1 + 1e-7))
    torch.testing.assert_close(hooked, core, rtol=1e-4, atol=1e-5)
    stream = applied(nodes, host, "zero-beside")
    torch.testing.assert_close(host.sample(stream, positive=referenced(count, method)), core, rtol=1e-4, atol=1e-5)
    for strength in (0.4, 2.0):
        hooked = host.sample(host.model, positive=referenced(count, method, strength))
        streamed = host.sample(stream, positive=referenced(count, method, strength))
        torch.testing.assert_close(hooked, streamed, rtol=1e-4, atol=1e-5)
        assert (hooked - core).abs().mean() > 1e-3


@pytest.mark.parametrize("images", ["joint", "apart"])
@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_several_images_attend_to_each_other_as_the_file_says(host, nodes, loras, attention, images):
    """Against core's one sequence under a mask; "apart" is how OminiControl's own code runs several conditions."""
    base, spans = 8 + 16, [(24, 40), (40, 52)]
    seen = torch.ones(52, 52, dtype=torch.bool)
    if attention == "alone":
        seen[base:, :base] = False
    if images == "apart":
        for first, last in spans:
            seen[first:last, base:first] = seen[first:last, last:] = False

    def masked(func, *args, **kwargs):
        return func(*args, **{**kwargs, "mask": torch.zeros(52, 52).masked_fill(~seen, float("-inf"))})

    core = host.model.clone()
    core.model_options["transformer_options"]["optimized_attention_override"] = masked
    ours = host.sample(applied(nodes, host, f"zero-{attention}-{images}"), positive=referenced(2))
    torch.testing.assert_close(ours, host.sample(core, positive=referenced(2)), rtol=1e-4, atol=1e-5)


def test_ominicontrols_images_are_apart(host, nodes, loras):
    """Their files hold keys alone; ours say it."""
    import folder_paths
    from safetensors.torch import load_file, save_file

    save_file(load_file(loras / "ummf-apart.safetensors"), loras / "theirs.safetensors")
    folder_paths.filename_list_cache.clear()
    apart, theirs = (applied(nodes, host, name) for name in ("ummf-apart", "theirs"))
    assert torch.equal(host.sample(apart, positive=referenced(2)), host.sample(theirs, positive=referenced(2)))


def test_a_strength_on_a_model_without_hooks_for_it_is_refused():
    from types import SimpleNamespace

    from comfyui_fluxir.nodes.ummf_hooks import strength_hook

    hook = strength_hook(0.5).hooks[0].transformers_dict["wrappers"]["diffusion_model"]
    [[call]] = hook.values()
    with pytest.raises(ValueError, match="UMMF Conditioning: a strength of 0.5 needs ComfyUI's own FLUX, but .* a Linear"):
        call(SimpleNamespace(class_obj=torch.nn.Linear(1, 1)), None)


def in_diffusers(folder, mode, noise, lq, conditioning, steps=4):
    from comfyui_fluxir.training.diffusers_host.model_folder import load_models
    from comfyui_fluxir.training.diffusers_host.ummf_host import UMMFHost

    [[text, extra]] = conditioning
    batch, grid = len(noise), noise.shape[-2:]
    ummf = UMMFHost(load_models(folder).transformer, random_lora(), mode)
    tokens = pack_latents((lq - SHIFT) * SCALE)
    with torch.no_grad():
        condition = ummf.prepare(
            tokens.expand(batch, -1, -1),
            text.expand(batch, -1, -1),
            extra["pooled_output"].expand(batch, -1),
            image_ids(*grid),
            (lq.shape[2] // 2, lq.shape[3] // 2),
        )
        guidance = torch.full((batch,), extra["guidance"])
        found = euler(lambda x, sigma: ummf.velocity(x, sigma, condition, guidance), pack_latents(noise), flux_sigmas(steps))
    return unpack_latents(found, *grid) / SCALE + SHIFT


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("size", [(8, 12), (4, 6)], ids=["same size", "smaller"])
def test_both_hosts_reach_the_same_latent(host, nodes, loras, name, size):
    noise, lq = random_latent(2, 2, 8, 12), random_latent(1, 1, *size)
    model = applied(nodes, host, f"ummf-{name}")
    in_comfyui = host.sample(model, noise=noise, positive=conditioned(nodes, lq))
    expected = in_diffusers(host.folder, MODES[name], noise, lq, prompt(3))
    torch.testing.assert_close(in_comfyui, expected, rtol=1e-4, atol=1e-4)
    assert (in_comfyui - host.sample(host.model, noise=noise)).abs().mean() > 0.1


@pytest.mark.parametrize("name", MODES)
def test_batches_cfg_and_candidates_are_the_rows_by_themselves(host, nodes, loras, name):
    """Two images, four rows (two candidates of each), with a negative prompt that has the images too."""
    lq, noise = random_latent(1, 2), random_latent(2, 4)
    model = applied(nodes, host, f"ummf-{name}")
    negative = prompt(7)
    batched = host.sample(model, noise=noise, positive=conditioned(nodes, lq), cfg=3.0, negative=conditioned(nodes, lq, negative))
    for row in range(4):
        own = lq[row % 2 : row % 2 + 1]
        alone = host.sample(
            model, noise=noise[row : row + 1], positive=conditioned(nodes, own), cfg=3.0, negative=conditioned(nodes, own, negative)
        )
        torch.testing.assert_close(batched[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_keys_and_values_are_computed_once_for_each_image_and_prompt(host, nodes, loras, computed, monkeypatch):
    model = applied(nodes, host, "ummf-alone")
    lq, noise = random_latent(1, 2), random_latent(2, 6)
    kept = host.sample(model, noise=noise, positive=conditioned(nodes, lq))
    assert computed == [2]
    assert injection(nodes, model)._cache._kept == []
    import comfy.model_management

    free = comfy.model_management.get_free_memory

    def none_free(device, both=False):
        return free(device, both) if both else 0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", none_free)
    again = host.sample(model, noise=noise, positive=conditioned(nodes, lq))
    assert computed == [2]
    torch.testing.assert_close(kept, again, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("scale", [1, 2], ids=["same resolution", "half the resolution"])
def test_a_tile_sees_its_part_of_the_condition(host, nodes, loras, name, scale):
    import nodes as core

    lq = random_latent(1, 1, 16 // scale, 16 // scale)
    noise = random_latent(2, 1, 16, 16)
    model = applied(nodes, host, f"ummf-{name}")
    tiled = core.ConditioningSetArea().append(conditioned(nodes, lq), 64, 64, 64, 0, 1.0)[0]  # the upper right quarter
    whole = host.sample(model, noise=noise, positive=tiled)
    part = lq[..., : 8 // scale, 8 // scale :]
    alone = host.sample(model, noise=noise[..., :8, 8:], positive=conditioned(nodes, part))
    torch.testing.assert_close(whole[..., :8, 8:], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODES)
def test_strength_grows_with_its_widget(host, nodes, loras, name):
    model = applied(nodes, host, f"zero-{name}")
    bare = host.sample(model)
    assert torch.equal(host.sample(model, positive=conditioned(nodes, strength=0)), bare)
    far = [
        (host.sample(model, positive=conditioned(nodes, strength=s), steps=1) - host.sample(model, steps=1)).abs().mean()
        for s in (0.01, 0.3, 1.0, 3.0)
    ]
    assert far == sorted(far) and far[0] > 0


@pytest.mark.parametrize("name", MODES)
def test_lora_strength_0_is_the_model_that_only_sees_the_image(host, nodes, loras, name):
    ours = host.sample(applied(nodes, host, f"ummf-{name}", 0.0), positive=conditioned(nodes))
    theirs = host.sample(applied(nodes, host, f"zero-{name}"), positive=conditioned(nodes))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_afterwards_the_model_is_as_it_was(host, nodes, loras):
    before = host.sample(host.model)
    for name in MODES:
        model = applied(nodes, host, f"ummf-{name}")
        host.sample(model, positive=conditioned(nodes))
        assert torch.equal(host.sample(host.model), before)
    with pytest.raises(ValueError, match="NaN"):
        conditioned(nodes, random_latent(1) * torch.nan)
    assert torch.equal(host.sample(host.model), before)


def test_it_works_with_the_fluxir_adapter_and_another_attention(host, nodes, loras):
    model = applied(nodes, host, "ummf-alone")
    both = host.apply(model)
    alone = host.sample(model, positive=conditioned(nodes))
    with_adapter = host.sample(both, positive=conditioned(nodes))
    assert (with_adapter - alone).abs().mean() > 0.01
    seen = []

    def another(func, *args, **kwargs):
        seen.append(args[1].shape[2])
        return func(*args, **kwargs)

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = another
    assert torch.equal(host.sample(patched, positive=conditioned(nodes)), alone)
    assert max(seen) == 8 + 16 + 16  # text, output and condition


@pytest.mark.parametrize("large", [False, True], ids=["smaller than the sequence", "larger"])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "computed"])
def test_text_that_the_models_own_mask_hides_is_not_there(host, nodes, loras, monkeypatch, kept, strength, large):
    """Eight prompt tokens with the last four hidden from all are four; the condition, by itself, sees no text at all."""
    if not kept:
        from comfyui_fluxir.nodes import ummf_hooks

        monkeypatch.setattr(ummf_hooks.UMMFHooks, "_fits", lambda *_: False)
    [[text, extra]] = prompt(3)
    hidden = torch.zeros(1, 24, 24)
    hidden[..., 4:8] = float("-inf")
    masked = [[text, {**extra, "attention_mask": hidden, "attention_mask_img_shape": (4, 4)}]]
    lq = random_latent(1, 1, 12, 12) if large else random_latent(1)
    model = applied(nodes, host, "ummf-alone")
    seen = [
        host.sample(model, positive=conditioned(nodes, lq, positive, strength=strength))
        for positive in (masked, [[text[:, :4], extra]], [[text, extra]])
    ]
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)
    assert (seen[0] - seen[2]).abs().mean() > 1e-3


def test_a_reference_is_a_second_image(host, nodes, loras):
    model = applied(nodes, host, "ummf-omini")
    one = host.sample(model, positive=conditioned(nodes))
    two = host.sample(model, positive=conditioned(nodes, reference={"samples": random_latent(9, 1, 4, 8)}))
    assert (one - two).abs().mean() > 1e-3


def test_images_are_encoded_by_the_vae(host, nodes, vae):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        [[_, from_image]] = nodes.UMMFConditioning.execute(prompt(3), image, vae=vae).result[0]
        [[_, from_latent]] = nodes.UMMFConditioning.execute(prompt(3), {"samples": vae.encode(image)}).result[0]
    assert torch.equal(from_image["reference_latents"][0], from_latent["reference_latents"][0])
    with pytest.raises(ValueError, match="connect the model's VAE"):
        nodes.UMMFConditioning.execute(prompt(3), image)


def test_what_cannot_work_is_refused(host, nodes, loras, tmp_path):
    class Other:
        model = None

        def get_model_object(self, name):
            return torch.nn.Linear(1, 1)

    with pytest.raises(ValueError, match="Apply UMMF LoRA: this model is of the kind NoneType, but a FLUX.1 model is needed"):
        nodes.ApplyUMMFLoRA.execute(Other(), "ummf-omini.safetensors", 1.0)
    wide = replace(TINY, hidden_size=256, num_heads=2)
    save_lora(loras / "wide.safetensors", LoRA.new(wide, 4), {}, OMINI)
    import folder_paths

    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match="Apply UMMF LoRA: wide.safetensors"):
        nodes.ApplyUMMFLoRA.execute(host.model, "wide.safetensors", 1.0)
    model = applied(nodes, host, "ummf-omini")
    import nodes as core

    tiled = core.ConditioningSetArea().append(conditioned(nodes, strength=0.5), 64, 64, 64, 64, 1.0)[0]
    with pytest.raises(ValueError, match="encode the degraded image at the sampled size"):
        host.sample(host.model, noise=random_latent(2, 1, 16, 16), positive=tiled)
    assert torch.isfinite(host.sample(model, noise=random_latent(2, 1, 16, 16), positive=tiled)).all()


def test_an_ominicontrol_file_is_known_by_its_keys(host, nodes, loras):
    """Their files hold no metadata: the same weights under their keys alone sample as our own file of that mode."""
    import folder_paths
    from safetensors.torch import load_file, save_file

    ours = loras / "ummf-omini.safetensors"
    weights = load_file(ours)
    assert all(key.startswith("transformer.") and (".lora_A.weight" in key or ".lora_B.weight" in key) for key in weights)
    save_file(weights, loras / "canny.safetensors")
    folder_paths.filename_list_cache.clear()
    theirs = host.sample(applied(nodes, host, "canny"), positive=conditioned(nodes))
    assert torch.equal(theirs, host.sample(applied(nodes, host, "ummf-omini"), positive=conditioned(nodes)))


def test_a_search_computes_the_conditions_keys_and_values_once(host, nodes, loras, vae, computed, monkeypatch):
    from .search_host import run

    model, lq = applied(nodes, host, "ummf-alone"), random_latent(1, 2)
    options = {"latent": {"samples": torch.zeros(2, 16, 8, 8)}, "positive": conditioned(nodes, lq), "preset": "best_of_n"}
    together = run(host, vae, model=model, **options)[0]["samples"]
    assert computed == [2]

    from comfyui_fluxir.nodes import search_sampler

    monkeypatch.setattr(search_sampler, "MOST_AT_ONCE", 1)
    alone = run(host, vae, model=model, **options)[0]["samples"]
    torch.testing.assert_close(together, alone, atol=3e-4, rtol=1e-3)
