"""Tile Model with what looks at an image beside the prompt: model patches, FLUX.2's references, the KV cache, prompts per tile."""

import pytest
import torch

from . import flux2_host
from .comfy_host import prompt, random_latent

SIZE = (12, 20)
"""Latent height and width; with tiles of 64 pixels, 8 of the latent, this is 2 x 3 tiles."""


@pytest.fixture(scope="module")
def tile(comfy):
    from comfyui_fluxir.nodes.tiles import TileModel

    return lambda model, tile=64, overlap=0.25: TileModel.execute(model, tile, overlap).result[0]


class PixelVAE:
    """Encodes an image as the mean of each 8 x 8 square's three channels, sixteen times."""

    encoded = 0

    def spacial_compression_encode(self):
        return 8

    def encode(self, image):
        PixelVAE.encoded += 1
        mean = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8).mean(1, keepdim=True)
        return mean.expand(-1, 16, -1, -1)


class PatchNetwork(torch.nn.Module):
    """What core's DiffSynth patch asks of its network: the control is the encoded image itself, as tokens."""

    additional_in_dim = 0

    def process_input_latent_image(self, latent):
        return latent.flatten(2).transpose(1, 2)

    def control_block(self, img, encoded, block):
        return encoded


def holder():
    """The network as core's Load Model Patch gives it: a ModelPatcher."""
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(PatchNetwork(), load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def image(height=8 * SIZE[0], width=8 * SIZE[1], seed=1):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def controlled(model, patch):
    """`model` with the network in whose blocks `patch` acts replaced by the patch alone."""

    def call(function, arguments):
        x, options = arguments["input"], arguments["c"]["transformer_options"]
        tokens = torch.zeros(len(x), x.shape[-2] * x.shape[-1], 16)
        for own in options["patches"]["double_block"]:
            own({"x": x, "img": tokens, "block_index": 0, "transformer_options": options})
        return tokens.transpose(1, 2).unflatten(2, x.shape[-2:]) + torch.tanh(x)

    model = model.clone()
    model.set_model_unet_function_wrapper(call)
    model.set_model_double_block_patch(patch)
    return model


def diffsynth(given, strength=0.5):
    from comfy_extras.nodes_model_patch import DiffSynthCnetPatch

    return DiffSynthCnetPatch(holder(), PixelVAE(), given, strength)


# Model patches


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("given", [image(), image(48, 80)], ids=["same size", "half size"])
def test_a_model_patch_sees_its_tiles_part_of_the_image(host, tile, cfg, given):
    """A patch that acts pointwise gives the untiled result, so every tile saw its own part."""
    noise = random_latent(2, 2, *SIZE)
    options = dict(noise=noise, cfg=cfg, negative=prompt(9), steps=2)
    whole, tiled = (controlled(host.model, diffsynth(given)) for _ in range(2))
    expected = host.sample(whole, **options)
    torch.testing.assert_close(host.sample(tile(tiled), **options), expected, rtol=1e-4, atol=1e-4)
    plain = host.sample(controlled(host.model, diffsynth(given, 0.0)), **options)
    assert (expected - plain).abs().mean() > 0.1


def test_each_tile_is_encoded_once_a_run_and_the_patch_itself_is_left_alone(host, tile):
    patch = diffsynth(image())
    before, PixelVAE.encoded = patch.encoded_image.clone(), 0
    model = tile(controlled(host.model, patch))
    host.sample(model, noise=random_latent(2, 1, *SIZE), steps=3)
    assert PixelVAE.encoded == 6 and torch.equal(patch.encoded_image, before)
    hooks = model.callbacks["on_cleanup"]["fluxir_tiles"][0].__self__
    assert not hooks._patches._copies


@pytest.mark.parametrize("names", [("image",), ("image", "inpaint_image", "mask"), ("hint_latent",)])
def test_everything_that_a_patch_keeps_of_an_image_is_cropped(comfy, names):
    from comfyui_fluxir.fluxir_core.execution.tiles import Tile
    from comfyui_fluxir.nodes.tile_patches import TilePatches

    class Patch:
        encoded_image = temp_data = "of the whole"

        def __call__(self, kwargs):
            return kwargs

        def middle(self, kwargs):
            return kwargs

    class Looker:
        def __init__(self, patch):
            self.patch = patch

        def __call__(self, **kwargs):
            return kwargs

    given = {
        "image": image(),
        "inpaint_image": image(seed=2),
        "mask": torch.rand(1, 1, 1, 96, 160),
        "hint_latent": random_latent(3, 1, *SIZE),
    }
    patch, place, x = Patch(), Tile(8, 8, 4, 12), random_latent(2, 1, *SIZE)
    for name in names:
        setattr(patch, name, given[name])
    looker = Looker(patch)
    options = {"patches": {"double_block": [patch], "attn1_patch": [looker], "layers": [(Patch, patch.middle)], "other": [max]}}
    patches = TilePatches()
    assert patches.apart(options)
    with patches.of(options, place, x, 8) as own:
        cropped, seen = own["patches"]["double_block"][0], own["patches"]["attn1_patch"][0]
        assert seen.patch is cropped and own["patches"]["layers"][0][1].__self__ is cropped and own["patches"]["other"] == [max]
        assert cropped is not patch and cropped.encoded_image is None and cropped.temp_data is None
        for name in names:
            part = given[name].movedim(-1, 1) if given[name].shape[-1] == 3 else given[name]
            expected = (place if name == "hint_latent" else place.times(8)).of(part)
            found = getattr(cropped, name)
            torch.testing.assert_close(found.movedim(-1, 1) if given[name].shape[-1] == 3 else found, expected)
    assert patch.encoded_image == "of the whole" and options["patches"]["double_block"] == [patch]


def test_patches_that_look_at_no_image_are_shared_and_tiles_stay_together(comfy):
    from comfyui_fluxir.fluxir_core.execution.tiles import Tile
    from comfyui_fluxir.nodes.tile_patches import TilePatches

    class Style:
        encoded_image = torch.zeros(1, 4, 8)  # a style of the whole image, as core's USO patch has it

        def __call__(self, kwargs):
            return kwargs

    style = Style()
    options = {"patches": {"post_input": [style, lambda args: args]}}
    patches = TilePatches()
    assert not patches.apart(options) and not patches.apart({})
    with patches.of(options, Tile(8, 8, 0, 0), random_latent(2, 1, *SIZE), 8) as own:
        assert own["patches"]["post_input"][0] is style and style.encoded_image is Style.encoded_image


# FLUX.2's references


@pytest.fixture(scope="module")
def flux2(comfy):
    return flux2_host.tiny_flux2()


def blended(host, model, noise, side, reference, **options):
    """What tiles of `side` latent pixels give, sampled one by one by hand and blended."""
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    grid = TileGrid(*noise.shape[-2:], side, 0.25)
    parts = [
        (
            each,
            host.sample(
                model,
                noise=each.of(noise),
                positive=flux2_host.prompt(3, reference_latents=[each.of(reference)]),
                steps=1,
                **options,
            ),
        )
        for each in grid.tiles
    ]
    return grid.blend(parts, noise)


def test_flux2s_reference_latents_are_cropped_to_the_tile(host, tile, flux2):
    """FLUX.2's latent pixel is 16 pixels: a tile of 128 pixels is 8 of them."""
    noise, reference = flux2_host.latent(2, *SIZE), flux2_host.latent(5, *SIZE)
    positive = flux2_host.prompt(3, reference_latents=[reference])
    found = host.sample(tile(flux2, 128), noise=noise, positive=positive, steps=1)
    torch.testing.assert_close(found, blended(host, flux2, noise, 8, reference), rtol=1e-3, atol=1e-3)
    other = host.sample(tile(flux2, 128), noise=noise, positive=flux2_host.prompt(3), steps=1)
    assert (found - other).abs().mean() > 1e-3


@pytest.fixture
def cached(comfy):
    """A MODEL with core's Flux KV Cache; its patch object."""
    nodes_flux = pytest.importorskip("comfy_extras.nodes_flux")

    def apply(model):
        model = nodes_flux.FluxKVCache.execute(model).result[0]
        (patch,) = model.model_options["transformer_options"]["patches"]["attn1_patch"]
        return model, patch

    return apply


def test_the_kv_cache_is_of_its_tile(host, tile, flux2, cached):
    """By hand each tile has a model with a cache of its own."""
    noise, reference = flux2_host.latent(2, *SIZE), flux2_host.latent(5, *SIZE)
    positive = flux2_host.prompt(3, reference_latents=[reference])
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    model, patch = cached(flux2)
    found = host.sample(tile(model, 128), noise=noise, positive=positive, steps=1)
    grid, parts = TileGrid(*SIZE, 8, 0.25), []
    for each in grid.tiles:
        own, _ = cached(flux2)
        given = flux2_host.prompt(3, reference_latents=[each.of(reference)])
        parts.append((each, host.sample(own, noise=each.of(noise), positive=given, steps=1)))
    torch.testing.assert_close(found, grid.blend(parts, noise), rtol=1e-3, atol=1e-3)
    assert patch.cache == {}


def test_the_kv_cache_is_read_again_by_the_tile_that_wrote_it(host, tile, flux2, cached):
    noise, reference = flux2_host.latent(2, *SIZE), flux2_host.latent(5, *SIZE)
    positive = flux2_host.prompt(3, reference_latents=[reference])
    model, patch = cached(flux2)
    seen = []

    def watch(function, arguments):
        seen.append((arguments["input"].sum().item(), len(patch.cache), id(patch.cache)))
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(watch)
    host.sample(tile(model, 128), noise=noise, positive=positive, steps=2)
    first, second = seen[:6], seen[6:]
    assert [full for _, full, _ in first] == [0] * 6 and all(full > 0 for _, full, _ in second)
    assert [own for *_, own in first] == [own for *_, own in second] and len({own for *_, own in first}) == 6


# A prompt for each tile


@pytest.fixture(scope="module")
def prompts(comfy):
    from comfyui_fluxir.nodes import tile_prompts

    return tile_prompts


def per_tile(prompts, count_of=lambda tiles: len(tiles)):
    tiles, places = prompts.SplitIntoTiles.execute(image(), 64, 0.25).result
    texts = [prompt(20 + number) for number in range(count_of(tiles))]
    return tiles, texts, prompts.PromptPerTile.execute(texts, [places]).result[0]


def test_an_image_is_split_as_tile_model_splits_the_latent(prompts):
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    tiles, _ = prompts.SplitIntoTiles.execute(image(), 64, 0.25).result
    expected = [each.times(8).of(image().movedim(-1, 1)).movedim(1, -1) for each in TileGrid(*SIZE, 8, 0.25).tiles]
    assert len(tiles) == 6 and all(torch.equal(*pair) for pair in zip(tiles, expected, strict=True))


def test_each_tile_hears_its_own_prompt(host, tile, prompts):
    from comfyui_fluxir.fluxir_core.execution.tiles import TileGrid

    noise = random_latent(2, 1, *SIZE)
    _, texts, positive = per_tile(prompts)
    found = host.sample(tile(host.model), noise=noise, positive=positive, steps=1)
    grid = TileGrid(*SIZE, 8, 0.25)
    parts = [(each, host.sample(host.model, noise=each.of(noise), positive=own, steps=1)) for each, own in zip(grid.tiles, texts)]
    torch.testing.assert_close(found, grid.blend(parts, noise), rtol=1e-3, atol=1e-3)


def test_cfg_and_a_common_negative_prompt(host, tile, prompts):
    noise = random_latent(2, 1, *SIZE)
    _, _, positive = per_tile(prompts)
    options = dict(noise=noise, steps=1)
    cond, uncond = (host.sample(tile(host.model), positive=own, **options) for own in (positive, prompt(9)))
    guided = host.sample(tile(host.model), positive=positive, negative=prompt(9), cfg=3.0, **options)
    torch.testing.assert_close(guided, uncond + 3.0 * (cond - uncond), rtol=1e-3, atol=1e-3)


def test_other_tiles_than_were_described_hear_the_prompt_of_most_of_them(host, tile, prompts):
    """After memory ran out there are more tiles, and an image that fits in one has one."""
    _, texts, positive = per_tile(prompts)
    seen = []
    model = host.model.clone()

    def record(function, arguments):
        context = arguments["c"]["c_crossattn"]
        seen.extend(number for row in context for number, own in enumerate(texts) if torch.equal(row, own[0][0][0]))
        return function(arguments["input"], arguments["timestep"], **arguments["c"])

    model.set_model_unet_function_wrapper(record)
    host.sample(tile(model, 256), noise=random_latent(2, 1, *SIZE), positive=positive, steps=1)
    assert len(seen) == 1
    seen.clear()
    host.sample(tile(model, 64, 0.5), noise=random_latent(2, 1, *SIZE), positive=positive, steps=1)
    assert len(seen) > 6 and set(seen) == set(range(6))


def test_prompts_and_tiles_have_to_be_as_many(prompts):
    with pytest.raises(ValueError, match="^Prompt per Tile: 5 prompts for 6 tiles; encode one text for each tile"):
        per_tile(prompts, lambda tiles: len(tiles) - 1)
    with pytest.raises(ValueError, match="^Split into Tiles: 2 images; give one"):
        prompts.SplitIntoTiles.execute(image().repeat(2, 1, 1, 1), 64, 0.25)
