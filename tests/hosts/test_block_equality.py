"""The adapter's MM-DiT block is FLUX's own: equal to ComfyUI's and to diffusers' on the same weights."""

import copy

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.layers import attention, rotary_embedding
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents
from comfyui_fluxir.fluxir_core.ummf.condition_stream import ConditionBranch
from comfyui_fluxir.fluxir_core.ummf.mode import ConditionMode

from .tiny import TINY, flux_weights

LARGEST = torch.finfo(torch.float16).max


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(5)
    weights = flux_weights()
    for key in weights:  # norms of ones would not show a mix-up of queries and keys
        if key.endswith(".scale"):
            weights[key] = 1 + 0.2 * torch.randn_like(weights[key])
    return weights


@pytest.fixture(scope="module")
def diffusers_model(weights, tmp_path_factory):
    from comfyui_fluxir.training.diffusers_host.single_file import load_transformer
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("flux") / "flux.safetensors"
    save_file(weights, path)
    return load_transformer(path).eval()


@pytest.fixture(scope="module")
def comfy_model(comfy, weights, tmp_path_factory):
    from comfy.ldm.flux.model import Flux
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("flux") / "flux.safetensors"
    save_file(weights, path)
    model = comfy.sd.load_diffusion_model(str(path)).model.diffusion_model
    assert isinstance(model, Flux)
    return model


def stream_inputs():
    torch.manual_seed(6)
    return torch.randn(2, 24, 128), torch.randn(2, 5, 128), torch.randn(2, 128)


def our_block(weights):
    adapter = FluxIRAdapter(AdapterConfig(TINY, rank=2, text_tokens=5))
    adapter.init_from_base(weights)
    ids = torch.cat([torch.zeros(5, 3), image_ids(8, 12)])[None]
    return adapter.double_block, rotary_embedding(ids, TINY.axes_dim, TINY.theta), ids


@torch.no_grad()
def test_the_block_equals_diffusers(weights, diffusers_model):
    block, rotary, ids = our_block(weights)
    image, text, vector = stream_inputs()
    theirs_text, theirs_image = diffusers_model.transformer_blocks[0](
        hidden_states=image, encoder_hidden_states=text, temb=vector, image_rotary_emb=diffusers_model.pos_embed(ids[0])
    )
    ours_image, ours_text = block(image, text, vector, rotary)
    torch.testing.assert_close(ours_image, theirs_image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours_text, theirs_text, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_block_equals_comfyui(weights, comfy_model):
    block, rotary, ids = our_block(weights)
    image, text, vector = stream_inputs()
    theirs_image, theirs_text = comfy_model.double_blocks[0](
        img=image.clone(), txt=text.clone(), vec=vector, pe=comfy_model.pe_embedder(ids)
    )
    ours_image, ours_text = block(image, text, vector, rotary)
    torch.testing.assert_close(ours_image, theirs_image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours_text, theirs_text, rtol=1e-5, atol=1e-5)


def overflowing(model):
    """`model` (an nn.Module) in float16, with feed-forwards whose outputs are beyond its range in many places."""
    model = copy.deepcopy(model).half()
    for name, weight in model.named_parameters():
        if name.endswith(("_mlp.2.weight", "linear2.weight")):
            weight.mul_(100_000)
    return model


def assert_within_half(ours, theirs):
    """Equal to `theirs`, as ComfyUI limits it; and there was something to limit. Rounding decides what overflows at the border."""
    theirs = theirs.nan_to_num(posinf=LARGEST, neginf=-LARGEST)
    assert 0.01 < (theirs.abs() == LARGEST).float().mean() < 0.9
    assert ours.isfinite().all()
    assert torch.isclose(ours, theirs, rtol=0.02, atol=200).float().mean() > 0.998


@torch.no_grad()
def test_what_overflows_in_float16_is_limited_as_in_comfyui(weights, comfy_model):
    block, rotary, ids = our_block(weights)
    image, text, vector = (x.half() for x in stream_inputs())
    theirs_image, theirs_text = overflowing(comfy_model).double_blocks[0](
        img=image.clone(), txt=text.clone(), vec=vector, pe=comfy_model.pe_embedder(ids)
    )
    ours_image, ours_text = overflowing(block)(image, text, vector, rotary)
    assert theirs_text.isfinite().all() and not theirs_image.isfinite().all()  # the image, the model limits behind its last block
    assert_within_half(ours_text, theirs_text)
    assert_within_half(ours_image, theirs_image)


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 2])
def test_what_overflows_in_float16_is_limited_in_condition_tokens(comfy_model, index):
    """Tokens that attend to themselves alone, in a double block that hides the text from them and in a single block."""
    model = overflowing(comfy_model)
    state, _, vector = (x.half() for x in stream_inputs())
    ids = image_ids(8, 12)
    branch = ConditionBranch(model.get_submodule, TINY, ConditionMode())
    query, key, value, leave = branch.enter(index, state, vector, branch._rotary([ids]))
    ours = leave(attention(query, key, value))
    if index < TINY.double_blocks:
        pe, hidden = model.pe_embedder(torch.cat([ids[:1], ids])[None]), torch.zeros(25, 25, dtype=torch.half)
        hidden[1:, 0] = -torch.inf
        theirs, _ = model.double_blocks[index](img=state.clone(), txt=state[:, :1].clone(), vec=vector, pe=pe, attn_mask=hidden)
    else:
        pe = model.pe_embedder(ids[None])
        theirs = model.single_blocks[index - TINY.double_blocks](state.clone(), vec=vector, pe=pe)
    assert_within_half(ours, theirs)


def test_the_block_starts_as_the_bases_first_from_either_layout(weights, diffusers_model):
    from_bfl, from_diffusers = our_block(weights)[0], our_block(diffusers_model.state_dict())[0]
    for (name, one), other in zip(from_bfl.named_parameters(), from_diffusers.parameters()):
        assert torch.equal(one, other), name
    assert torch.equal(from_bfl.img_attn.qkv.weight, weights["double_blocks.0.img_attn.qkv.weight"])


@torch.no_grad()
def test_a_whole_transformer_is_the_same_in_both_hosts(comfy_model, diffusers_model):
    from comfyui_fluxir.training.diffusers_host.transformer import call_transformer, exact_time

    torch.manual_seed(7)
    latent, text, pooled = torch.randn(2, 16, 8, 12), torch.randn(2, 5, 64), torch.randn(2, 32)
    t, guidance = torch.tensor([0.3, 0.97]), torch.tensor([4.0, 2.5])
    in_comfyui = comfy_model(latent, t, text, pooled, guidance, transformer_options={})
    hooks = exact_time(diffusers_model)
    in_diffusers = call_transformer(diffusers_model, pack_latents(latent), t, text, pooled, image_ids(8, 12), guidance)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(pack_latents(in_comfyui), in_diffusers, rtol=1e-4, atol=1e-4)
