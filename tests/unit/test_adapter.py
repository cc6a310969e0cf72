"""The FluxIR adapter's architecture (arXiv 2504.15159, section 3.2)."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from comfyui_fluxir.training.commands.params import count_parameters

DIMS = FluxDimensions(
    hidden_size=128, num_heads=1, context_dim=24, vec_dim=12, double_blocks=2, single_blocks=3, guidance_embed=True
)


def adapter(**options):
    torch.manual_seed(0)
    return FluxIRAdapter(AdapterConfig(DIMS, **{"rank": 4, "text_tokens": 6, **options}))


def inputs(tokens=12, text=6, batch=2):
    torch.manual_seed(1)
    return dict(
        lq_tokens=torch.randn(batch, tokens, 64),
        text=torch.randn(batch, text, 24),
        pooled=torch.randn(batch, 12),
        image_ids=image_ids(6, 8)[:tokens],
    )


@pytest.mark.parametrize(("rank", "se"), [(16, "11.6"), (32, "22.8"), (64, "45.2"), (128, "90.0"), (None, "1076.2")])
def test_the_parameters_at_flux_dev_size_are_those_of_table_2(rank, se):
    counts = count_parameters(rank)
    assert f"{counts['se'] / 1e6:.1f}" == se
    assert f"{counts['rest'] / 1e6:.0f}" == "387"
    assert counts["total"] == counts["se"] + counts["rest"]


@pytest.mark.parametrize("option", ["hidden", "token64"])
def test_the_degraded_latent_joins_the_noisy_one_before_the_block(option):
    """Equation 1: with M_i the identity in token space, z_t + z_lq in gives what z_t = 0 and the sum as z_lq give."""
    network, given = adapter(input=option), inputs()
    noisy, t, guidance = torch.randn(2, 12, 64), torch.tensor([0.2, 0.9]), torch.full((2,), 4.0)
    with torch.no_grad():
        source = torch.eye(64) if option == "token64" else network.img_in.weight
        network.lq_in.weight.copy_(source)
        network.lq_in.bias.zero_()
        together = network(noisy, t, guidance, network.prepare(**given))
        given["lq_tokens"] = given["lq_tokens"] + noisy
        alone = network(torch.zeros_like(noisy), t, guidance, network.prepare(**given))
    like = torch.zeros(())
    torch.testing.assert_close(together.image(0, like), alone.image(0, like), rtol=1e-4, atol=1e-5)


def test_the_learned_prompts_add_to_the_bases_own():
    network, given = adapter(), inputs()
    with torch.no_grad():
        network.theta_p.normal_()
        network.theta_y.normal_()
    learned = network.prepare(**given)
    given["text"], given["pooled"] = given["text"] + network.theta_p, given["pooled"] + network.theta_y
    with torch.no_grad():
        network.theta_p.zero_()
        network.theta_y.zero_()
    added = network.prepare(**given)
    torch.testing.assert_close(learned.text, added.text)
    torch.testing.assert_close(learned.pooled, added.pooled)


@pytest.mark.parametrize("length", [3, 9])
def test_a_prompt_of_another_length_takes_the_first_rows_of_theta_p(length):
    network = adapter()
    with torch.no_grad():
        network.theta_p.normal_()
    given = inputs(text=length)
    expected = given["text"].clone()
    expected[:, :6] += network.theta_p[:length]
    torch.testing.assert_close(network.prepare(**given).text, network.txt_in(expected))


def test_an_se_layer_is_its_two_linear_maps_without_activation():
    layer = adapter().se_image[0]
    x, y = torch.randn(2, 5, 128)
    torch.testing.assert_close(layer(x) + layer(y), layer(x + y) + layer(torch.zeros_like(x)))


def test_every_trainable_weight_gets_a_gradient_once_the_excitations_move():
    network, given = adapter(), inputs()
    control = network(torch.randn(2, 12, 64), torch.tensor([0.2, 0.9]), torch.full((2,), 4.0), network.prepare(**given))
    like = torch.zeros(())
    residuals = [control.image(i, like) for i in range(DIMS.blocks)]
    residuals += [control.text(i, like) for i in range(DIMS.blocks - 1)]
    sum(residual.square().mean() for residual in residuals).backward()
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    without = [name for name, gradient in trained.items() if gradient is None or not gradient.any()]
    assert without == []
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == [
        f"se_text.4.{part}" for part in ("squeeze.weight", "squeeze.bias", "excite.weight", "excite.bias")
    ]


def test_what_is_prepared_depends_on_neither_the_noisy_latent_nor_the_time():
    network, given = adapter(), inputs()
    condition = network.prepare(**given)
    guidance, like = torch.full((2,), 4.0), torch.zeros(())
    first = network(torch.randn(2, 12, 64), torch.tensor([0.1, 0.4]), guidance, condition)
    first.image(0, like)
    x, t = torch.randn(2, 12, 64), torch.tensor([0.2, 0.9])
    reused = network(x, t, guidance, condition).image(1, like)
    fresh = network(x, t, guidance, network.prepare(**given)).image(1, like)
    assert torch.equal(reused, fresh)


@pytest.mark.parametrize(("option", "value"), [("input", "both"), ("inject", "during"), ("rank", 0)])
def test_a_wrong_option_is_refused_by_name_and_value(option, value):
    with pytest.raises(ValueError, match=rf"{option} is '?{value}'?; use"):
        adapter(**{option: value})


def test_tokens_hold_a_latents_patches_in_channel_row_column_order():
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    tokens = pack_latents(latents)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(tokens[0, 4], latents[0, :, 2:4, 2:4].reshape(-1))
    assert torch.equal(unpack_latents(tokens, 4, 6), latents)
    assert image_ids(4, 6)[4].tolist() == [0, 1, 1]
