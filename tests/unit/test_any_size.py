"""Images of any size: padded to whole tokens and cut back, and a VAE that codes them in tiles."""

import pytest
import torch
from comfyui_fluxir.fluxir_core.execution.tiled_vae import LATENT, decode_in_tiles, encode_in_tiles
from comfyui_fluxir.fluxir_core.image.compare import VIEWS, before_after, most_different_place
from comfyui_fluxir.fluxir_core.image.padding import TOKEN, crop_back, pad_to_tokens
from torch.nn.functional import avg_pool2d, interpolate


@pytest.mark.parametrize("size", [(1, 1), (16, 32), (427, 640), (600, 399)])
def test_what_is_padded_comes_back_exactly(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    padded = pad_to_tokens(images)
    assert all(side % TOKEN == 0 and side - own < TOKEN for side, own in zip(padded.shape[-2:], size))
    assert torch.equal(crop_back(padded, size), images)


def test_the_edge_goes_on_as_it_ends():
    padded = pad_to_tokens(torch.arange(20.0).expand(1, 1, 16, 20))
    assert (padded[..., 20:] == 19).all()


def test_a_result_smaller_than_its_photo_is_refused():
    with pytest.raises(ValueError, match="the result is 64 x 48 pixels, smaller than the photo of 64 x 50"):
        crop_back(torch.zeros(1, 3, 48, 64), (50, 64))


def encode(images):
    return avg_pool2d(images, LATENT)


def decode(latents):
    return interpolate(latents, scale_factor=LATENT)


def test_a_local_coder_gives_the_same_in_tiles_and_sees_no_larger_ones():
    images = torch.rand(2, 3, 168, 240, generator=torch.Generator().manual_seed(0))
    seen = []

    def noted(images):
        seen.append(max(images.shape[-2:]))
        return encode(images)

    latents = encode_in_tiles(noted, images, 12, overlap=1 / 8)
    assert torch.allclose(latents, encode(images), atol=1e-5)
    assert len(seen) > 1 and max(seen) <= 12 * LATENT
    assert torch.allclose(decode_in_tiles(decode, latents, 12, overlap=1 / 8), decode(latents), atol=1e-5)


def test_the_tiles_of_a_large_photo_cost_little_more_than_the_photo():
    pixels = []

    def noted(images):
        pixels.append(images.shape[-2] * images.shape[-1])
        return encode(images)

    encode_in_tiles(noted, torch.zeros(1, 1, 1536, 2048), 128, overlap=1 / 8)
    assert sum(pixels) < 1.4 * 1536 * 2048 and max(pixels) <= 1024**2


def test_an_image_of_one_tile_is_coded_whole():
    images = torch.rand(1, 3, 96, 64)
    assert torch.equal(encode_in_tiles(encode, images, 12), encode(images))
    assert torch.equal(encode_in_tiles(encode, images, None), encode(images))


def test_the_place_where_images_differ_is_found():
    images = torch.zeros(2, 3, 256, 384)
    images[1, :, 100:140, 300:340] = 1
    top, left, side = most_different_place(images)
    assert top <= 100 and top + side >= 140 - 8 and left <= 300 and left + side >= 340 - 8


@pytest.mark.parametrize("view", VIEWS)
def test_before_and_after_are_both_seen_in_every_view(view):
    before, after = torch.zeros(3, 96, 128), torch.ones(3, 96, 128)
    before[0], after[2] = 1, 0
    shown = before_after(before[:, ::2, ::2], after, view)
    colors = {pixel for _count, pixel in shown.getcolors(1 << 20)}
    assert {(255, 0, 0), (255, 255, 0)} <= colors


def test_a_split_image_keeps_its_size_and_its_halves():
    before, after = torch.zeros(3, 70, 101), torch.ones(3, 70, 101)
    shown = before_after(before, after, "split")
    assert shown.size == (101, 70) and shown.getpixel((5, 60)) == (0, 0, 0) and shown.getpixel((95, 60)) == (255, 255, 255)
