"""Which part of which image LucidFlux sees: tiles, regions, and the image encoder."""

import pytest
import torch

from .comfy_host import prompt, random_latent
from .lucidflux_host import CLOSE, SIZES, by_the_paper, features, image

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
