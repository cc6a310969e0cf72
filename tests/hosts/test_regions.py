"""Regional prompts on a model with Apply FluxIR Adapter: each sees its own part of the degraded latent."""

import pytest
import torch

from .comfy_host import prompt, random_latent

HALVES = (slice(0, 8), slice(8, 16))
"""The columns of a latent of 8 x 16 that the two prompts are for."""


def by_area(columns):
    return {"area": (8, 8, 0, columns.start)}


def by_percentage(columns):
    return {"area": ("percentage", 1.0, 0.5, 0.0, columns.start / 16)}


def by_the_bounds_of_a_mask(columns):
    mask = torch.zeros(1, 8, 16)
    mask[..., columns] = 1
    return {"mask": mask, "set_area_to_bounds": True, "mask_strength": 1.0}


def regional(seed, region):
    """Two prompts, each for one half, in the order in which core cannot tell them by their place in the batch."""
    return [entry for number, columns in enumerate(HALVES) for entry in prompt(seed + number, **region(columns))]


def first_denoised(host, model, noise, **options):
    caught = []
    host.sample(model, noise=noise, steps=1, callback=lambda step, denoised, x, total: caught.append(denoised), **options)
    return caught[0]


def halves_alone(host, noise, lq, positive, negative, cfg):
    """What regional prompts must give: every half as an image of its own."""
    parts = []
    for number, columns in enumerate(HALVES):
        model = host.apply(lq=lq[..., columns].contiguous())
        options = dict(positive=prompt(positive + number), negative=prompt(negative + number), cfg=cfg)
        parts.append(first_denoised(host, model, noise[..., columns].contiguous(), **options))
    return torch.cat(parts, -1)


@pytest.mark.parametrize("region", [by_area, by_percentage, by_the_bounds_of_a_mask])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_regional_prompt_sees_its_part_of_the_degraded_latent(host, region, cfg):
    noise, lq = random_latent(2, 2, 8, 16), random_latent(1, 2, 8, 16)
    options = dict(positive=regional(3, region), negative=regional(9, region), cfg=cfg)
    found = first_denoised(host, host.apply(lq=lq), noise, **options)
    torch.testing.assert_close(found, halves_alone(host, noise, lq, 3, 9, cfg), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["adapter first", "tiles first"])
def test_regions_are_tiled_with_the_adapter(host, order):
    from comfyui_fluxir.nodes.tiles import TileModel

    def tiled(model):
        return TileModel.execute(model, 64, 0.25).result[0]

    noise, lq = random_latent(2, 1, 8, 16), random_latent(1, 1, 8, 16)
    model = tiled(host.apply(lq=lq)) if order == "adapter first" else host.apply(tiled(host.model), lq=lq)
    found = first_denoised(host, model, noise, positive=regional(3, by_area))
    torch.testing.assert_close(found, halves_alone(host, noise, lq, 3, 3, 1.0), rtol=1e-4, atol=1e-4)


def test_a_node_that_cuts_the_latent_by_itself_is_told_of_tile_model(host):
    def in_two(function, arguments):
        return torch.cat(
            [function(arguments["input"][..., columns], arguments["timestep"], **arguments["c"]) for columns in HALVES], -1
        )

    model = host.apply(lq=random_latent(1, 1, 8, 16))
    model.set_model_unet_function_wrapper(in_two)
    with pytest.raises(ValueError, match=r"another node cuts the sampled latent of 16x8 into parts of 8x8 .*use Tile Model"):
        host.sample(model, noise=random_latent(2, 1, 8, 16), steps=1)


def test_a_node_that_samples_tiles_one_by_one_is_told_of_tile_model(host):
    with pytest.raises(ValueError, match="has 128 x 64 pixels but the sampled latent 64 x 64; .*use Tile Model"):
        host.sample(host.apply(lq=random_latent(1, 1, 8, 16)), noise=random_latent(2), steps=1)
