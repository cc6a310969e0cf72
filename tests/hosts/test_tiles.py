"""Tile Model in the real ComfyUI: what a tile sees, how tiles are blended, and what memory does to them."""

import logging

import pytest
import torch

from .comfy_host import prompt, random_latent

SIZE = (12, 20)
"""Latent height and width; with tiles of 64 pixels, 8 of the latent, this is 2 x 3 tiles."""


@pytest.fixture(scope="module")
def tile(comfy):
    from comfyui_fluxir.nodes.tiles import TileModel

    return lambda model, tile=64, overlap=0.25: TileModel.execute(model, tile, overlap).result[0]


class Seen:
    """A MODEL whose calls are recorded and answered by `answer(x)` in the place of the network."""

    def __init__(self, model, answer=None):
        self.model, self.answer, self.calls = model.clone(), answer, []
        self.model.set_model_unet_function_wrapper(self._call)

    def _call(self, function, arguments):
        self.calls.append(arguments)
        if self.answer is not None:
            return self.answer(arguments["input"])
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    @property
    def sizes(self):
        return {tuple(call["input"].shape[2:]) for call in self.calls}


# A latent that fits in a tile


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (2, 8)])
def test_a_latent_that_is_not_larger_than_the_tile_is_sampled_bit_for_bit_as_without(host, tile, size):
    noise, lq = random_latent(2, 2, *size), random_latent(1, 1, *size)
    options = dict(noise=noise, cfg=3.0, negative=prompt(9, 12))
    assert torch.equal(host.sample(tile(host.apply(lq=lq)), **options), host.sample(host.apply(lq=lq), **options))


# The blend


@pytest.mark.parametrize("size", [(12, 20), (9, 8), (7, 64), (19, 11)])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_pointwise_model_gives_the_untiled_result(host, tile, size, cfg):
    noise = random_latent(2, 2, *size)
    whole, tiled = (Seen(host.model, torch.tanh) for _ in range(2))
    options = dict(noise=noise, cfg=cfg, negative=prompt(9), steps=2)
    expected = host.sample(whole.model, **options)
    torch.testing.assert_close(host.sample(tile(tiled.model), **options), expected)
    assert all(max(seen) <= 8 for seen in tiled.sizes) and whole.sizes == {size}


def test_masks_and_regions_weigh_as_without_tiles(host, tile):
    """Each prompt has a constant answer, so that only the weights decide."""
    noise, mask = random_latent(2, 1, *SIZE), torch.zeros(1, *SIZE)
    mask[:, :5, 3:15] = 0.7
    region = {"area": (10, 13, 1, 6), "strength": 0.6}
    positive = [
        *prompt(3),
        [prompt(4)[0][0], {**prompt(4)[0][1], "mask": mask, "mask_strength": 0.8, "set_area_to_bounds": False}],
        [prompt(5)[0][0], {**prompt(5)[0][1], **region}],
    ]

    def answered(model):
        def call(function, arguments):
            own = arguments["c"]["c_crossattn"].mean((1, 2)).reshape(-1, 1, 1, 1)
            return own.expand_as(arguments["input"])

        model = model.clone()
        model.set_model_unet_function_wrapper(call)
        return model

    results = [
        host.sample(model, noise=noise, positive=positive, steps=1) for model in (answered(host.model), tile(answered(host.model)))
    ]
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_a_default_conditioning_is_refused(host, tile):
    positive = [[text, {**values, "default": True}] for text, values in prompt(3)]
    with pytest.raises(ValueError, match="^Tile Model: a default conditioning .* cannot be tiled"):
        host.sample(tile(host.model), noise=random_latent(2, 1, *SIZE), positive=prompt(4) + positive)


# What a tile sees


def first_denoised(host, model, noise, **options):
    """The model's clean estimate at the first step."""
    caught = []
    host.sample(model, noise=noise, steps=1, callback=lambda step, denoised, x, total: caught.append(denoised), **options)
    return caught[0]


def blended(host, tile_of, noise, tile=64):
    """What the blend must be: every tile as an image of its own, `tile_of(tile)` giving the model and options for it."""
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    grid = TileGrid(*noise.shape[2:], tile // 8)
    parts = []
    for own in grid.tiles:
        model, options = tile_of(own)
        parts.append((own, first_denoised(host, model, own.of(noise).contiguous(), **options)))
    return grid.blend(parts, noise)


@pytest.mark.parametrize("order", ["adapter first", "tiles first"])
def test_the_adapter_sees_the_tiles_part_of_the_degraded_latent(host, tile, order):
    noise, lq = random_latent(2, 2, *SIZE), random_latent(1, 2, *SIZE)
    model = tile(host.apply(lq=lq)) if order == "adapter first" else host.apply(tile(host.model), lq=lq)
    expected = blended(host, lambda own: (host.apply(lq=own.of(lq)), {}), noise)
    torch.testing.assert_close(first_denoised(host, model, noise), expected, rtol=1e-4, atol=1e-4)


def test_guidance_with_prompts_of_two_lengths_is_right_in_tiles(host, tile):
    noise, lq = random_latent(2, 1, *SIZE), random_latent(1, 1, *SIZE)
    options = dict(cfg=3.0, negative=prompt(9, 12))
    expected = blended(host, lambda own: (host.apply(lq=own.of(lq)), options), noise)
    found = first_denoised(host, tile(host.apply(lq=lq)), noise, **options)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_degraded_latent_of_another_size_is_refused_with_the_whole_latents_size(host, tile):
    with pytest.raises(ValueError, match="degraded photo has 64 x 64 pixels but the sampled latent 160 x 96"):
        host.sample(tile(host.apply(lq=random_latent(1))), noise=random_latent(2, 1, *SIZE))


def test_ummf_sees_the_tiles_part_of_its_image_and_keeps_it_for_every_tile(host, tile, tmp_path, monkeypatch):
    import folder_paths
    from comfyui_fluxir.fluxir_core.ummf.condition_stream import ConditionBranch
    from comfyui_fluxir.nodes.ummf import ApplyUMMFLoRA, UMMFConditioning

    from .tiny import write_tiny_lora

    write_tiny_lora(tmp_path / "tiles-ummf.safetensors")
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    model = ApplyUMMFLoRA.execute(host.model, "tiles-ummf.safetensors", 1.0).result[0]
    noise, lq = random_latent(2, 1, *SIZE), random_latent(1, 1, *SIZE)

    def shown(latent):
        return {"positive": UMMFConditioning.execute(prompt(3), {"samples": latent}).result[0]}

    expected = blended(host, lambda own: (model, shown(own.of(lq).contiguous())), noise)
    torch.testing.assert_close(first_denoised(host, tile(model), noise, **shown(lq)), expected, rtol=1e-4, atol=1e-4)
    computed, remember = [], ConditionBranch.remember
    monkeypatch.setattr(ConditionBranch, "remember", lambda *args: computed.append(len(args[1])) or remember(*args))
    monkeypatch.setattr("comfyui_fluxir.nodes.tile_hooks.MOST_AT_ONCE", 1)
    host.sample(tile(model), noise=noise, steps=3, **shown(lq))
    assert sum(computed) == 6  # once for each tile, not for each step


def test_kontexts_reference_of_the_images_shape_is_cropped_and_another_is_shown_whole(host, tile):
    noise = random_latent(2, 1, *SIZE)
    seen = Seen(host.model, torch.tanh)
    references = [random_latent(4, 1, *SIZE), random_latent(5, 1, 24, 40), random_latent(6, 1, 16, 8)]
    positive = [[text, {**values, "reference_latents": references}] for text, values in prompt(3)]
    host.sample(tile(seen.model), noise=noise, steps=1, positive=positive)
    for call in seen.calls:
        assert [tuple(shown.shape[2:]) for shown in call["c"]["ref_latents"]] == [(8, 8), (16, 16), (16, 8)]


def test_a_controlnet_sees_the_tiles_part_of_its_image(host, tile):
    from comfy.controlnet import ControlBase

    from nodes import ControlNetApplyAdvanced

    class Brightness(ControlBase):
        """Adds its image, a pixel for each latent pixel, to the image tokens of the first block."""

        def __init__(self):
            super().__init__()
            self.compression_ratio = 1

        def copy(self):
            made = Brightness()
            self.copy_to(made)
            return made

        def get_control(self, x, t, cond, batched_number, transformer_options):
            assert self.cond_hint_original.shape[2:] == x.shape[2:]
            hint = self.cond_hint_original.mean(1, keepdim=True)[..., ::2, ::2].flatten(2).movedim(1, 2)
            return {"input": [hint.expand(len(x), -1, 128)], "output": []}

    def controlled(hint):
        positive, _ = ControlNetApplyAdvanced().apply_controlnet(
            prompt(3), prompt(3), Brightness(), hint.movedim(1, -1), 1.0, 0.0, 1.0
        )
        return {"positive": positive}

    noise, hint = random_latent(2, 1, *SIZE), torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(8))
    expected = blended(host, lambda own: (host.model, controlled(own.of(hint))), noise)
    found = first_denoised(host, tile(host.model), noise, **controlled(hint))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_restoration_fidelity_acts_on_the_blended_tiles(host, tile):
    from comfyui_fluxir.nodes.fidelity import RestorationFidelity

    noise, lq = random_latent(2, 1, *SIZE), random_latent(1, 1, *SIZE)

    def guided(model, fidelity):
        return RestorationFidelity.execute(model, {"samples": lq}, fidelity).result[0]

    pointwise = [Seen(host.model, torch.tanh).model for _ in range(2)]
    results = [host.sample(model, noise=noise) for model in (guided(tile(pointwise[0]), 0.4), guided(pointwise[1], 0.4))]
    torch.testing.assert_close(*results)
    restoring = host.apply(lq=lq)
    orders = [host.sample(model, noise=noise) for model in (guided(tile(restoring), 0.4), tile(guided(restoring, 0.4)))]
    assert torch.equal(*orders)
    free, given = (host.sample(guided(tile(restoring), fidelity), noise=noise) for fidelity in (0.0, 1.0))
    torch.testing.assert_close(given, lq, atol=1e-5, rtol=1e-5)
    assert (orders[0] - lq).norm() < 0.9 * (free - lq).norm()


# Memory


def test_a_tiled_model_asks_for_a_tiles_memory_alone(host, tile, monkeypatch):
    import comfy.model_management

    asked = []
    load = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        comfy.model_management,
        "load_models_gpu",
        lambda models, memory_required=0, **more: asked.append(memory_required) or load(models, memory_required, **more),
    )
    for model, size in ((host.model, (8, 8)), (tile(host.model), (64, 80)), (host.model, (64, 80))):
        host.sample(model, noise=random_latent(2, 1, *size), steps=1)
    assert asked[0] == asked[1] < asked[2]


@pytest.mark.parametrize("side", [128, 64, 32])
def test_the_tile_is_chosen_by_the_predicted_memory(host, tile, monkeypatch, side):
    import comfy.model_management

    needed = host.model.model.memory_required([2, 16, side, 20])
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_: 2.1 * needed)
    seen = Seen(host.model, torch.tanh)
    host.sample(tile(seen.model, tile=0), noise=random_latent(2, 1, 130, 20), steps=1)
    assert seen.sizes == {(side, 20)}


def test_tiles_share_a_call_as_the_free_memory_allows(host, tile, monkeypatch):
    from comfyui_fluxir.nodes import tile_hooks

    needed = host.model.model.memory_required([2, 16, 8, 8])
    seen = Seen(host.model, torch.tanh)
    monkeypatch.setattr(tile_hooks.comfy.model_management, "get_free_memory", lambda *_: 4 * needed)
    host.sample(tile(seen.model), noise=random_latent(2, 1, *SIZE), steps=1)
    assert [len(call["input"]) for call in seen.calls] == [3, 3]


def test_out_of_memory_halves_the_batch_then_the_tile_and_the_run_goes_on(host, tile, caplog):
    noise = random_latent(2, 1, 64, 160)
    largest = 32 * 32

    def short(x):
        if x[:, 0].numel() > largest:
            raise torch.cuda.OutOfMemoryError
        return torch.tanh(x)

    seen, whole = Seen(host.model, short), Seen(host.model, torch.tanh)
    with caplog.at_level(logging.WARNING):
        found = host.sample(tile(seen.model, tile=512), noise=noise, steps=2)
    torch.testing.assert_close(found, host.sample(whole.model, noise=noise, steps=2))
    messages = [record.message for record in caplog.records if record.message.startswith("Tiles: out of memory")]
    assert messages and messages[-1].endswith("1 at once of at most 32 latent pixels a side")
    assert tuple(seen.calls[-1]["input"].shape[2:]) == (32, 32)


def test_nothing_of_a_run_outlives_it(host, tile):
    model = tile(host.apply(lq=random_latent(1, 1, *SIZE)))
    host.sample(model, noise=random_latent(2, 1, *SIZE), steps=1)
    injection = model.callbacks["on_cleanup"]["fluxir_tiles"][0].__self__
    assert injection._run is None and not injection._controls


# Searches


def test_a_search_runs_over_the_whole_of_a_tiled_image(host, tile, vae):
    from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch

    from . import search_host

    model, latent = tile(host.apply(lq=random_latent(1, 1, *SIZE))), {"samples": torch.zeros(1, 16, *SIZE)}
    options = dict(model=model, latent=latent, steps=search_host.sigmas(3))
    found, _, report = search_host.run(host, vae, search=EvolutionarySearch(1, 0), **options)
    torch.testing.assert_close(found["samples"], search_host.baseline(host, **options))
    assert report["nfe"] == 3


def test_a_search_chooses_for_each_tile_against_its_part_of_the_degraded_image(host, tile, vae):
    from comfyui_fluxir.fluxir_core.searches.stepwise import StepwiseSearch

    from . import search_host

    shapes = []

    class Near(search_host.Judge):
        def __call__(self, images, reference=None):
            shapes.append((tuple(images.shape[2:]), tuple(reference.shape[2:])))
            return super().__call__(images)

    _, _, report = search_host.run(
        host,
        vae,
        model=tile(host.apply(lq=random_latent(1, 1, *SIZE))),
        latent={"samples": torch.zeros(1, 16, *SIZE)},
        steps=search_host.sigmas(3),
        search=StepwiseSearch(3, 1.0, tile=64),
        judge=search_host.verifier(Near()),
        degraded=torch.rand(1, 2 * SIZE[0] * 8, 2 * SIZE[1] * 8, 3),
    )
    assert report["nfe"] == report["nfe_planned"] and report["verifications"] == report["verifications_planned"]
    assert [len(entry["tiles"][0]) for entry in report["log"]] == [6, 6]
    assert set(shapes) == {((64, 64), (128, 128)), ((96, 160), (192, 320))}
