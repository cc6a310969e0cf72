"""LucidFlux's networks and files, against the paper written down a second time, and the published code's own numbers."""

import os
from pathlib import Path

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.prompt_files import load_prompt
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids, pack_latents
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from comfyui_fluxir.fluxir_core.lucidflux.files import check_lucidflux_base, load_lucidflux, save_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.images import fit
from comfyui_fluxir.fluxir_core.lucidflux.model import LucidFlux
from comfyui_fluxir.fluxir_core.lucidflux.schedule import lucidflux_sigmas
from safetensors.torch import load_file, save_file

from . import lucidflux_reference as reference

CASES = os.environ.get("FLUXIR_CASES")
GOLDEN = CASES and Path(CASES) / "lucidflux" / "golden.safetensors"
CLOSE = dict(rtol=1e-4, atol=1e-4)


def network(path):
    loaded = load_lucidflux(path)
    built = LucidFlux(loaded.config)
    built.load_state_dict(loaded.state_dict)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights():
    return reference.random_weights()


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("lucidflux") / "lucidflux.safetensors"
    save_file(weights, file)
    return file


@pytest.fixture(scope="module")
def own(path):
    return network(path)


def given(seed=1, batch=2, tokens=6, height=6, width=8, context=32, vec=16):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "x": normal(batch, 16, height, width),
        "image_lq": 2 * torch.rand(batch, 3, 8 * height, 8 * width, generator=generator) - 1,
        "image_ldr": 2 * torch.rand(batch, 3, 8 * height, 8 * width, generator=generator) - 1,
        "text": normal(batch, tokens, context),
        "pooled": normal(batch, vec),
        "timestep": torch.tensor([0.3, 0.9])[:batch],
        "guidance": torch.full((batch,), 4.0),
    }


def residuals(network, x, image_lq, image_ldr, text, pooled, timestep, guidance, blocks=19):
    conditions = network.prepare(image_lq / 2 + 0.5, image_ldr / 2 + 0.5, text, pooled, image_ids(*x.shape[-2:]))
    control = network(pack_latents(x), timestep, guidance, conditions)
    return [control.residual(block) for block in range(blocks)]


def differs(one, other):
    return (one - other).abs().max() > 1e-2


# The networks


def test_every_residual_is_the_papers(own, weights):
    inputs = given()
    for found, expected in zip(residuals(own, **inputs), reference.residuals(weights, **inputs), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_the_semantic_tokens_are_the_papers(own, weights):
    features = torch.randn(2, 10, 12, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(own.semantic_tokens(features), reference.semantic_tokens(weights, features), **CLOSE)


def test_the_two_images_are_not_exchanged(own, weights):
    inputs = given()
    inputs["image_lq"], inputs["image_ldr"] = inputs["image_ldr"], inputs["image_lq"]
    exchanged = residuals(own, **inputs)
    assert all(differs(found, right) for found, right in zip(exchanged, reference.residuals(weights, **given())))


def test_a_residual_knows_the_number_of_its_block(own, weights):
    expected = reference.residuals(weights, **given(), blocks=21)
    found = residuals(own, **given())
    for shift in (1, 2):  # the next block, and the next with the same residual before modulation
        assert all(differs(found[block], expected[block + shift]) for block in range(19))


def test_a_base_of_another_depth_gets_as_many_residuals(own, weights):
    found, expected = residuals(own, **given(), blocks=3), reference.residuals(weights, **given(), blocks=3)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_an_odd_latent_gets_a_token_for_its_last_row_and_column(own):
    assert own.condition_lq.hint(torch.zeros(1, 3, 56, 72)).shape == (1, 4 * 5, 128)


@pytest.mark.skipif(not (GOLDEN and GOLDEN.exists()), reason="FLUXIR_CASES names no folder with lucidflux/golden.safetensors")
@pytest.mark.parametrize("second", [False, True], ids=["the pack", "the tests' own reference"])
def test_the_published_codes_numbers_are_reached(second):
    golden = {key: value.float() for key, value in load_file(GOLDEN).items()}
    inputs = {key.removeprefix("input."): value for key, value in golden.items() if key.startswith("input.")}
    features = inputs.pop("siglip")
    if second:
        found, tokens = reference.residuals(golden, **inputs), reference.semantic_tokens(golden, features)
        first = reference.branch(
            golden,
            "condition_lq",
            *(inputs[name] for name in ("x", "image_lq", "text", "pooled")),
            inputs["timestep"],
            inputs["guidance"],
        )
    else:
        built = network(GOLDEN).float()
        found, tokens = residuals(built, **inputs), built.semantic_tokens(features)
        conditions = built.prepare(
            inputs["image_lq"] / 2 + 0.5, inputs["image_ldr"] / 2 + 0.5, inputs["text"], inputs["pooled"], image_ids(6, 8)
        )
        shown = (conditions.hints[0], conditions.texts[0], conditions.pooled[0], conditions.rotary)
        first = built.condition_lq(pack_latents(inputs["x"]), inputs["timestep"], inputs["guidance"], *shown)
    torch.testing.assert_close(tokens, golden["output.connector"], **CLOSE)
    for index in range(2):
        torch.testing.assert_close(first[index], golden[f"output.lq_branch.{index}"], **CLOSE)
    for block in range(19):
        torch.testing.assert_close(found[block], golden[f"output.residual.{block}"], **CLOSE)


# Images of the latent's size


def test_an_image_of_the_right_size_is_left_alone():
    image = torch.rand(1, 3, 48, 64)
    assert torch.equal(fit(image, 6, 8), image)


def test_an_image_is_cropped_in_the_middle_as_the_vae_crops_it():
    image = torch.rand(1, 3, 51, 70)
    assert torch.equal(fit(image, 6, 8), image[..., 1:49, 3:67])


def test_an_image_is_filled_up_as_encode_photo_fills_it():
    image = torch.rand(1, 3, 42, 64)
    filled = fit(image, 6, 8)
    assert torch.equal(filled[..., :42, :], image) and torch.equal(filled[..., 42:, :], image[..., 41:, :].expand(1, 3, 6, 64))


def test_an_image_of_another_resolution_is_resized():
    image = torch.rand(2, 3, 24, 32)
    assert fit(image, 6, 8).shape == (2, 3, 48, 64) and 0 <= fit(image, 6, 8).min() and fit(image, 6, 8).max() <= 1
    torch.testing.assert_close(fit(torch.full((1, 3, 96, 128), 0.3), 6, 8), torch.full((1, 3, 48, 64), 0.3))


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="64x64 but the sampled latent is for 64x48 pixels; "):
        fit(torch.rand(1, 3, 64, 64), 6, 8)


# The schedule


def test_the_schedule_is_the_published_one():
    """1024 x 1024: 64 tokens by their formula, mu = 0.5 + (64 - 256) 0.65 / 3840 = 0.4675; sigma = e^mu / (e^mu + 1/t - 1)."""
    sigmas = lucidflux_sigmas(4, 1024, 1024)
    e = 2.718281828 ** (0.5 - 192 * 0.65 / 3840)
    expected = [e / (e + 1 / t - 1) for t in (1, 0.75, 0.5, 0.25)]
    torch.testing.assert_close(sigmas, torch.tensor([*expected, 0.0]))


def test_larger_images_begin_their_schedule_higher():
    assert (lucidflux_sigmas(4, 2048, 2048)[1:-1] > lucidflux_sigmas(4, 1024, 1024)[1:-1]).all()


# The files


def nested(weights):
    """The public file's dictionary of dictionaries."""
    content = {}
    for key, value in weights.items():
        part, _, name = key.partition(".")
        content.setdefault(part, {})[name] = value
    return content


def test_the_authors_pickle_and_its_conversion_are_one_network(weights, path, tmp_path):
    torch.save(nested(weights), tmp_path / "lucidflux.pth")
    loaded = load_lucidflux(tmp_path / "lucidflux.pth")
    save_lucidflux(tmp_path / "converted.safetensors", loaded)
    expected = load_lucidflux(path)
    for other in (loaded, load_lucidflux(tmp_path / "converted.safetensors")):
        assert other.config == expected.config and not other.report.unused
        assert other.state_dict.keys() == expected.state_dict.keys()
        assert all(torch.equal(value, expected.state_dict[key]) for key, value in other.state_dict.items())


class Harmful:
    """Unpickling it runs a function."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("read", [load_lucidflux, load_prompt])
def test_a_pickle_of_more_than_tensors_is_not_run(read, tmp_path, capsys):
    torch.save({"condition_lq": Harmful(), "txt": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(WeightFileError, match=r"^harmful.pth cannot be read as a file of nothing but weights"):
        read(tmp_path / "harmful.pth")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors"])
def test_a_torn_file_is_refused_in_one_sentence(name, tmp_path):
    (tmp_path / name).write_bytes(b"not a file of weights")
    with pytest.raises(WeightFileError, match=f"^{name} cannot be read as a .*; download it again"):
        load_lucidflux(tmp_path / name)


def without(weights, key):
    return {name: value for name, value in weights.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "modulation_ldr.linear.bias"), "incomplete: .* 1 missing .modulation_ldr.linear.bias"),
        (lambda w: without(w, "connector.redux_up.weight"), "is no LucidFlux file"),
        (lambda w: {"x": w["connector.redux_up.weight"]}, "is no LucidFlux file"),
        (lambda w: w | {"connector.redux_down.weight": torch.zeros(3, 24)}, "has shape .3, 24. where .* need .32, 24."),
        (lambda w: w | {"connector.redux_up.bias": torch.full((24,), torch.nan)}, "holds NaN or infinite"),
    ],
    ids=["incomplete", "without connector", "another file", "shape", "nan"],
)
def test_a_wrong_file_is_refused(weights, tmp_path, change, message):
    save_file(change(weights), tmp_path / "wrong.safetensors")
    with pytest.raises(WeightFileError, match=f"^wrong.safetensors.*{message}"):
        load_lucidflux(tmp_path / "wrong.safetensors")


def test_a_base_of_other_sizes_is_refused(path):
    from dataclasses import replace

    config = load_lucidflux(path).config
    check_lucidflux_base(config, replace(config.dims, double_blocks=19, single_blocks=38))
    with pytest.raises(WeightFileError, match="hidden_size 128 instead of 3072.; choose FLUX.1-dev"):
        check_lucidflux_base(config, replace(config.dims, hidden_size=3072))
    with pytest.raises(WeightFileError, match="guidance_embed True instead of False"):
        check_lucidflux_base(config, replace(config.dims, guidance_embed=False))


# Stored prompts


def test_a_prompt_is_read_in_every_public_layout(weights, tmp_path, path):
    text, pooled = torch.randn(1, 7, 32), torch.randn(1, 16)
    torch.save({"txt": text, "vec": pooled, "prompt": "restore"}, tmp_path / "authors.pt")
    save_file({"prompt_embeds": text, "pooled_prompt_embeds": pooled}, tmp_path / "diffusers.safetensors")
    prompt = load_prompt(tmp_path / "authors.pt")
    save_lucidflux(tmp_path / "own.safetensors", load_lucidflux(path), prompt, {"prompt": prompt.words})
    for name, words in (("authors.pt", "restore"), ("diffusers.safetensors", None), ("own.safetensors", "restore")):
        found = load_prompt(tmp_path / name)
        assert torch.equal(found.text, text[0]) and torch.equal(found.pooled, pooled[0]) and found.words == words
    assert not load_lucidflux(tmp_path / "own.safetensors").report.unused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"txt": torch.zeros(1, 7, 32)}, "holds no prompt"),
        ({"txt": torch.zeros(2, 7, 32, 1), "vec": torch.zeros(1, 16)}, "holds a prompt of shapes"),
        ({"txt": torch.full((1, 7, 32), torch.inf), "vec": torch.zeros(1, 16)}, "txt holds NaN or infinite"),
    ],
)
def test_a_file_without_a_prompt_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "prompt.pt")
    with pytest.raises(WeightFileError, match=f"^prompt.pt.*{message}"):
        load_prompt(tmp_path / "prompt.pt")
