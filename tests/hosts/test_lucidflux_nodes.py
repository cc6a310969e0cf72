"""LucidFlux's nodes while ComfyUI's own samplers run a native, tiny FLUX."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux, save_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.schedule import lucidflux_sigmas
from safetensors.torch import save_file

from ..unit import lucidflux_reference as reference
from .comfy_host import prompt, random, random_latent
from .lucidflux_host import SIZES, LucidFluxHost, features, image
from .search_host import baseline, run

CLOSE = dict(rtol=1e-3, atol=1e-3)
"""Of samples, whose values are up to about 10: other orders of summation differ by a few 1e-4."""


@pytest.fixture(scope="module")
def lucid(host, tmp_path_factory):
    return LucidFluxHost(host, tmp_path_factory.mktemp("lucidflux"))


def planes(image):
    return 2 * image.movedim(-1, 1) - 1


def by_the_paper(lucid, degraded=None, cleaned=None, seen=None, strength=1.0):
    """A FLUX that gets what the paper says, by the tests' own reference: residuals and semantic tokens."""
    degraded, cleaned = image(1) if degraded is None else degraded, image(2) if cleaned is None else cleaned
    seen = (features(3) if seen is None else seen)["last_hidden_state"]

    def call(function, arguments):
        x, t, c = arguments["input"], arguments["timestep"], dict(arguments["c"])
        rows = len(x)
        given = (c["c_crossattn"], c["y"], t.float(), c["guidance"])
        residuals = reference.residuals(
            lucid.weights,
            x,
            planes(degraded).expand(rows, -1, -1, -1),
            planes(cleaned).expand(rows, -1, -1, -1),
            *given,
            blocks=2,
        )
        tokens = reference.semantic_tokens(lucid.weights, seen).expand(rows, -1, -1)
        c["c_crossattn"] = torch.cat([c["c_crossattn"], tokens], 1)
        c["control"] = {"input": [strength * residual for residual in residuals], "output": []}
        return function(x, t, **c)

    model = lucid.host.model.clone()
    model.set_model_unet_function_wrapper(call)
    return model


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


# Tiles


@pytest.fixture(scope="module")
def tile(comfy):
    from comfyui_fluxir.nodes.tiles import TileModel

    return lambda model: TileModel.execute(model, 64, 0.25).result[0]


@pytest.mark.parametrize("order", ["tiles last", "tiles first"])
def test_a_tile_sees_its_part_of_both_images_and_the_tokens_of_the_whole(lucid, tile, order):
    """One step of a constant noise field, tile by tile by hand: the crops are of pixels, before the hint's convolutions."""
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    height, width = 12, 20
    degraded, cleaned = image(1, 1, 8 * height, 8 * width), image(2, 1, 8 * height, 8 * width)
    noise = random_latent(2, 1, height, width)
    model = (
        tile(lucid.apply(None, degraded, cleaned))
        if order == "tiles last"
        else lucid.apply(tile(lucid.host.model), degraded, cleaned)
    )
    found = lucid.host.sample(model, noise=noise, steps=1)
    grid = TileGrid(height, width, 8, 0.25)
    parts = []
    for each in grid.tiles:
        crops = (each.times(8).of(image.movedim(-1, 1)).movedim(1, -1) for image in (degraded, cleaned))
        parts.append((each, lucid.host.sample(by_the_paper(lucid, *crops), noise=each.of(noise), steps=1)))
    torch.testing.assert_close(found, grid.blend(parts, noise), **CLOSE)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_batches_and_guidance_in_tiles(lucid, tile, cfg):
    degraded, cleaned, seen = image(1, 2, 96, 160), image(2, 2, 96, 160), features(3, 2)
    noise, options = random_latent(2, 2, 12, 20), dict(cfg=cfg, negative=prompt(9, 12), steps=1)
    together = lucid.host.sample(tile(lucid.apply(None, degraded, cleaned, seen)), noise=noise, **options)
    own = {"last_hidden_state": seen["last_hidden_state"][1:]}
    alone = lucid.host.sample(tile(lucid.apply(None, degraded[1:], cleaned[1:], own)), noise=noise[1:], **options)
    torch.testing.assert_close(together[1:], alone, **CLOSE)


def test_a_region_sees_its_part_of_both_images_and_the_tokens_of_the_whole(lucid):
    from comfyui_fluxir.fluxir_core.execution.tiles import Tile

    regions = [Tile(8, 8, 0, 0), Tile(8, 12, 0, 8)]
    degraded, cleaned, noise = image(1, 1, 64, 160), image(2, 1, 64, 160), random_latent(2, 1, 8, 20)
    regional = [entry for seed, region in enumerate(regions) for entry in prompt(3 + seed, area=tuple(region))]
    found = lucid.host.sample(lucid.apply(None, degraded, cleaned), noise=noise, positive=regional, steps=1)
    for seed, region in enumerate(regions):
        crops = (region.times(8).of(whole.movedim(-1, 1)).movedim(1, -1) for whole in (degraded, cleaned))
        alone = lucid.host.sample(by_the_paper(lucid, *crops), noise=region.of(noise), positive=prompt(3 + seed), steps=1)
        torch.testing.assert_close(region.of(found), alone, **CLOSE)


# CLIP_VISION


@pytest.fixture(scope="module")
def siglip(comfy):
    """Core's SigLIP at a tiny size, of random weights."""
    from comfy.clip_vision import ClipVisionModel

    config = {
        "model_type": "siglip_vision_model",
        "num_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": SIZES["features"],
        "image_size": 32,
        "patch_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    model = ClipVisionModel(config)
    torch.manual_seed(0)
    for weight in model.model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def test_a_clip_vision_model_sees_the_whole_cleaned_image_squeezed_to_its_square(lucid, siglip):
    cleaned = image(2, 1, 64, 96)
    noise = random_latent(2, 1, 8, 12)
    square = torch.nn.functional.interpolate(cleaned.movedim(-1, 1), (32, 32), mode="bilinear", antialias=True).movedim(1, -1)
    output = siglip.encode_image(square, crop=False)
    degraded = image(1, 1, 64, 96)
    results = [lucid.host.sample(lucid.apply(None, degraded, cleaned, seen), noise=noise) for seen in (siglip, output)]
    assert torch.equal(*results)
    other = lucid.host.sample(lucid.apply(None, degraded, cleaned, features(9)), noise=noise)
    assert (results[0] - other).abs().mean() > 1e-3


def test_another_image_encoder_is_refused(lucid):
    wrong = {"last_hidden_state": torch.zeros(1, 257, 1024)}
    with pytest.raises(ValueError, match="gives 1024 values a token, but LucidFlux needs 12; load SigLIP 2"):
        lucid.apply(clip_vision=wrong)


# Weights


def test_comfyui_manages_the_weights(lucid):
    import comfy.model_management

    model = lucid.apply()
    assert model.get_additional_models() == [lucid.lucidflux.patcher]
    lucid.host.sample(model)
    assert any(m.model.model is lucid.lucidflux.patcher.model for m in comfy.model_management.current_loaded_models)
    again = lucid.apply(model, degraded=image(7))
    assert len(again.get_additional_models()) == 1 and not lucid.host.model.get_additional_models()
    assert torch.equal(lucid.host.sample(again), lucid.host.sample(lucid.apply(degraded=image(7))))


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ["finished", "interrupted", "failed"])
def test_the_model_is_as_it_was_and_nothing_is_kept(lucid, ending):
    import comfy.model_management

    expected = lucid.host.sample(lucid.host.model)
    model = lucid.apply()
    raised = {"interrupted": comfy.model_management.InterruptProcessingException, "failed": Stop}.get(ending)

    def callback(step, *_):
        if step == 1 and raised:
            raise raised()

    if raised:
        with pytest.raises(raised):
            lucid.host.sample(model, callback=callback)
    else:
        lucid.host.sample(model, callback=callback)
    hooks = model.callbacks["on_cleanup"]["fluxir_lucidflux"][0].__self__
    assert not hooks._prepared and hooks._fitted is None
    assert torch.equal(lucid.host.sample(lucid.host.model), expected)


def test_the_memory_estimate_covers_branches_and_tokens(lucid, monkeypatch):
    import comfy.sampler_helpers

    heights = []
    estimate = comfy.sampler_helpers.estimate_memory
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "estimate_memory",
        lambda model, shape, conds: heights.append(shape[2]) or estimate(model, shape, conds),
    )
    lucid.host.sample(lucid.host.model)
    lucid.host.sample(lucid.apply())
    assert heights == [8, 8 + 2 + 5]  # 3/16 of 8 rows; 10 tokens are 40 latent pixels, 5 rows of 8


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_file_in_lower_precision_is_kept_so_and_computes_near_the_same(lucid, precision):
    name = f"{precision}.safetensors".removeprefix("torch.")
    lower = {key: value.to(precision) if value.ndim > 1 else value.bfloat16() for key, value in lucid.weights.items()}
    save_file(lower, lucid.folder / name)
    loaded = lucid.load(name)
    weights = loaded.patcher.model.state_dict()
    assert weights["condition_lq.img_in.weight"].dtype == precision
    assert torch.equal(weights["condition_lq.img_in.bias"].float(), lower["condition_lq.img_in.bias"].float())
    exact, near = lucid.host.sample(lucid.apply(), steps=1), lucid.host.sample(lucid.apply(lucidflux=loaded), steps=1)
    bare = lucid.host.sample(lucid.host.model, steps=1)
    assert 0 < (near - exact).norm() < 0.2 * (exact - bare).norm()


def write_lora(folder):
    """A LoRA in LucidNFT's layout in `folder`; what it adds, by LucidFlux's names."""
    modules = {
        "lq.double_blocks.1.img_mlp.0": ("condition_lq.double_blocks.1.img_mlp.0", 128, 512),
        "pre.controlnet_blocks.0": ("condition_ldr.controlnet_blocks.0", 128, 128),
    }
    weights, deltas = {}, {}
    for seed, (name, (own, inputs, outputs)) in enumerate(modules.items()):
        down, up = 0.2 * random(seed, 2, inputs), 0.2 * random(seed + 9, outputs, 2)
        key = f"base_model.model.dual_condition_branch.{name}"
        weights |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        deltas[f"{own}.weight"] = 3 * up @ down
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}), encoding="utf-8")
    return deltas


def test_lucidnft_changes_the_branches_as_if_it_were_merged(lucid):
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFluxLoRA

    deltas = write_lora(lucid.folder / "lora_condition")
    merged = {key: value + deltas[key] if key in deltas else value for key, value in lucid.weights.items()}
    save_file(merged, lucid.folder / "merged.safetensors")
    expected = lucid.host.sample(lucid.apply(lucidflux=lucid.load("merged.safetensors")))
    before = lucid.host.sample(lucid.apply())
    changed = ApplyLucidFluxLoRA.execute(lucid.lucidflux, "lora_condition/adapter_model.safetensors", 1.0).result[0]
    torch.testing.assert_close(lucid.host.sample(lucid.apply(lucidflux=changed)), expected, **CLOSE)
    assert (expected - before).abs().mean() > 1e-3
    assert torch.equal(lucid.host.sample(lucid.apply()), before)
    assert torch.equal(
        lucid.host.sample(lucid.apply(lucid.apply(), lucidflux=changed)), lucid.host.sample(lucid.apply(lucidflux=changed))
    )


def test_a_lora_of_another_size_is_refused(lucid):
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFluxLoRA

    folder = lucid.folder / "other"
    folder.mkdir()
    key = "base_model.model.dual_condition_branch.lq.double_blocks.7.img_mlp.0"
    save_file(
        {f"{key}.lora_A.weight": torch.zeros(2, 128), f"{key}.lora_B.weight": torch.zeros(512, 2)}, folder / "lora.safetensors"
    )
    with pytest.raises(
        ValueError, match="Apply LucidFlux LoRA: other/lora.safetensors changes parts that lucidflux.safetensors lacks"
    ):
        ApplyLucidFluxLoRA.execute(lucid.lucidflux, "other/lora.safetensors", 1.0)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degraded": image(1, 3)}, "Apply LucidFlux: 3 rows of the degraded image for a sampled batch of 1; give one"),
        ({"cleaned": image(1, 1, 64, 32)}, "Apply LucidFlux: cleaned: an image is 32x64 but the sampled latent is for 64x64"),
        ({"clip_vision": features(3, 2)}, "2 rows of the image encoder's output for a sampled batch of 1"),
        ({"start": 0.5, "end": 0.5}, "start_percent 0.5 is not below end_percent 0.5"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(lucid, options, message):
    with pytest.raises(ValueError, match=message):
        lucid.host.sample(lucid.apply(**options))


def test_a_lucidflux_for_another_base_is_refused(lucid):
    save_file(reference.random_weights(hidden=128, context=32, vec=32, features=12, inner=24), lucid.folder / "small.safetensors")
    with pytest.raises(
        ValueError, match="^Apply LucidFlux: LucidFlux was made for another base model .context_dim 32 instead of 64"
    ):
        lucid.apply(lucidflux=lucid.load("small.safetensors"))


def test_a_file_that_is_no_lucidflux_is_named(lucid):
    save_file({"a": torch.zeros(1)}, lucid.folder / "else.safetensors")
    with pytest.raises(ValueError, match="^Load LucidFlux: else.safetensors is no LucidFlux file; choose lucidflux.pth"):
        lucid.load("else.safetensors")


# Schedule and prompt


def test_the_sigmas_are_those_of_the_sampled_size(comfy):
    from comfyui_fluxir.nodes.lucidflux import LucidFluxSigmas

    (sigmas,) = LucidFluxSigmas.execute({"samples": torch.zeros(1, 16, 128, 96)}, 20).result
    assert torch.equal(sigmas, lucidflux_sigmas(20, 1024, 768)) and len(sigmas) == 21


def test_a_stored_prompt_is_a_conditioning(lucid):
    from comfyui_fluxir.nodes.stored_prompt import LoadStoredPrompt

    text, pooled = random(1, 1, 7, 64), random(2, 1, 32)
    torch.save({"txt": text, "vec": pooled, "prompt": "restore"}, lucid.folder / "prompt_embeddings.pt")
    (stored,) = LoadStoredPrompt.execute("prompt_embeddings.pt", 2.5).result
    expected = [[text, {"pooled_output": pooled, "guidance": 2.5}]]
    assert torch.equal(lucid.host.sample(lucid.apply(), positive=stored), lucid.host.sample(lucid.apply(), positive=expected))
    with pytest.raises(ValueError, match="^Load Stored Prompt: lucidflux.safetensors holds no prompt"):
        LoadStoredPrompt.execute("lucidflux.safetensors", 4.0)


def test_a_converted_file_holds_its_prompt(lucid):
    from comfyui_fluxir.fluxir_core.flux.prompt_files import StoredPrompt
    from comfyui_fluxir.nodes.stored_prompt import LoadStoredPrompt

    own = StoredPrompt(random(1, 7, 64), random(2, 32), "restore")
    save_lucidflux(lucid.folder / "whole.safetensors", load_lucidflux(lucid.folder / "lucidflux.safetensors"), own)
    (stored,) = LoadStoredPrompt.execute("whole.safetensors", 4.0).result
    assert torch.equal(stored[0][0], own.text[None]) and torch.equal(stored[0][1]["pooled_output"], own.pooled[None])
    expected = lucid.host.sample(lucid.apply())
    torch.testing.assert_close(lucid.host.sample(lucid.apply(lucidflux=lucid.load("whole.safetensors"))), expected, **CLOSE)
