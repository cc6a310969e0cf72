"""Where UMMF's images lie beside core's references, and who sees whom."""

import pytest
import torch

from .comfy_host import prompt, random_latent
from .ummf_host import applied, conditioned


def test_without_a_lora_the_conditioning_is_cores_reference(host, ummf):
    import node_helpers

    theirs = node_helpers.conditioning_set_values(prompt(3), {"reference_latents": [random_latent(1)]}, append=True)
    shown = host.sample(host.model, positive=conditioned(ummf))
    assert torch.equal(shown, host.sample(host.model, positive=theirs))
    assert (shown - host.sample(host.model)).abs().mean() > 0.01


def test_our_stream_is_cores_own_way_with_references(host, ummf, ummf_loras):
    """A strength of next to 1 takes our way, exactly 1 takes core's."""
    ours = host.sample(host.model, positive=conditioned(ummf, strength=1 + 1e-7))
    torch.testing.assert_close(ours, host.sample(host.model, positive=conditioned(ummf)), rtol=1e-4, atol=1e-5)


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
def test_references_lie_where_core_puts_them_at_any_strength(host, ummf, ummf_loras, method, count):
    """Our hook at next to 1, and our stream in a mode that is Kontext's but for a LoRA of zeros, against core's own way."""
    core = host.sample(host.model, positive=referenced(count, method))
    hooked = host.sample(host.model, positive=referenced(count, method, 1 + 1e-7))
    torch.testing.assert_close(hooked, core, rtol=1e-4, atol=1e-5)
    stream = applied(ummf, host, "zero-beside")
    torch.testing.assert_close(host.sample(stream, positive=referenced(count, method)), core, rtol=1e-4, atol=1e-5)
    for strength in (0.4, 2.0):
        hooked = host.sample(host.model, positive=referenced(count, method, strength))
        streamed = host.sample(stream, positive=referenced(count, method, strength))
        torch.testing.assert_close(hooked, streamed, rtol=1e-4, atol=1e-5)
        assert (hooked - core).abs().mean() > 1e-3


@pytest.mark.parametrize("images", ["joint", "apart"])
@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_several_images_attend_to_each_other_as_the_file_says(host, ummf, ummf_loras, attention, images):
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
    ours = host.sample(applied(ummf, host, f"zero-{attention}-{images}"), positive=referenced(2))
    torch.testing.assert_close(ours, host.sample(core, positive=referenced(2)), rtol=1e-4, atol=1e-5)


def test_ominicontrols_images_are_apart(host, ummf, ummf_loras):
    """Their files hold keys alone; ours say it."""
    import folder_paths
    from safetensors.torch import load_file, save_file

    save_file(load_file(ummf_loras / "ummf-apart.safetensors"), ummf_loras / "theirs.safetensors")
    folder_paths.filename_list_cache.clear()
    apart, theirs = (applied(ummf, host, name) for name in ("ummf-apart", "theirs"))
    assert torch.equal(host.sample(apart, positive=referenced(2)), host.sample(theirs, positive=referenced(2)))


def test_a_strength_on_a_model_without_hooks_for_it_is_refused():
    from types import SimpleNamespace

    from comfyui_fluxir.nodes.ummf_hooks import strength_hook

    hook = strength_hook(0.5).hooks[0].transformers_dict["wrappers"]["diffusion_model"]
    [[call]] = hook.values()
    with pytest.raises(ValueError, match="UMMF Conditioning: a strength of 0.5 needs ComfyUI's own FLUX, but .* a Linear"):
        call(SimpleNamespace(class_obj=torch.nn.Linear(1, 1)), None)
