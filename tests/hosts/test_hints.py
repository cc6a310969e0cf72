"""What nodes say to an artist: errors that name one node, and what would go wrong without a word."""

from types import SimpleNamespace

import pytest
import torch

from .comfy_host import random_latent


@pytest.fixture
def nodes(comfy):
    from comfyui_fluxir import nodes

    return nodes


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("the noise holds NaN", "TTS Sampler (test-time search): the noise holds NaN"),
        ("Apply FluxIR Adapter: another size", "Apply FluxIR Adapter: another size"),
        ("TTS Sampler Select (test-time search): no", "TTS Sampler Select (test-time search): no"),
        ("Halving: 0 particles", "TTS Sampler (test-time search): 0 particles"),
    ],
)
def test_an_error_names_one_node(nodes, error, said):
    from comfyui_fluxir.nodes.runtime import in_name_of

    assert str(in_name_of("TTS Sampler (test-time search)", ValueError(error))) == said


def test_settings_out_of_range_name_the_node_alone(nodes):
    with pytest.raises(ValueError, match=r"^Evolutionary Search: 0 lineages"):
        from comfyui_fluxir.fluxir_core.searches.evolutionary import EvolutionarySearch
        from comfyui_fluxir.nodes.runtime import in_name_of

        try:
            EvolutionarySearch(lineages=0)
        except ValueError as error:
            raise in_name_of("Evolutionary Search", error) from None


def test_an_image_that_cannot_fit_is_refused_before_it_is_sampled(nodes, host, monkeypatch):
    import comfy.model_management

    def apply(model):
        latent = {"samples": random_latent(1, 1, 64, 64)}
        return nodes.ApplyFluxIRAdapter.execute(model, host.adapter, latent, 1.0, 0.0, 1.0).result[0]

    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda _device: 2**10)
    with pytest.raises(ValueError, match="^Apply FluxIR Adapter: an image of 512 x 512 pixels in one piece .* put Tile Model"):
        host.sample(apply(host.model), noise=random_latent(2, 1, 64, 64))


def test_a_vae_of_another_kind_of_model_is_refused(nodes, host):
    from comfyui_fluxir.nodes.degraded_latent import check_vae

    check_vae("Some Node", SimpleNamespace(latent_channels=16), host.model)
    with pytest.raises(ValueError, match="^Some Node: the VAE belongs to another kind of model .it has 4 channels, the model 16"):
        check_vae("Some Node", SimpleNamespace(latent_channels=4), host.model)


def test_a_lora_that_is_shown_no_photo_says_so_once(nodes):
    from comfyui_fluxir.fluxir_core.ummf.mode import KONTEXT
    from comfyui_fluxir.nodes.ummf_hooks import UMMFHooks

    said = []
    hooks = UMMFHooks(KONTEXT, say=said.append)

    def run(references):
        hooks.diffusion_model(lambda *_args, **_kwargs: None, None, None, None, ref_latents=references)
        hooks.cleanup(None)

    run([torch.zeros(1, 16, 2, 2)])
    assert said == []
    run(None)
    hooks.cleanup(None)
    assert len(said) == 1 and "UMMF Conditioning" in said[0]


@pytest.mark.parametrize(
    ("others", "warned"),
    [
        ({"2": ("UNETLoader", {"unet_name": "flux1-dev.safetensors"})}, True),
        ({"2": ("UNETLoader", {"unet_name": "Flux1-Dev-Kontext_fp8.safetensors"})}, False),
        ({"2": ("FluxIRApplyUMMFLoRA", {"lora_name": "a.safetensors"})}, False),
        ({}, True),
    ],
)
def test_a_graph_whose_model_reads_no_image_is_known(nodes, others, warned):
    from comfyui_fluxir.nodes.ummf import _nothing_reads_images

    assert _nothing_reads_images({"1": ("FluxIRUMMFConditioning", {"strength": 1.0}), **others}) == warned


@pytest.mark.parametrize(("latent", "warned"), [(["3", 0], True), (["4", 1], True), (["4", 0], False), (["5", 0], False)])
def test_an_empty_latent_with_distilled_sigmas_is_known(nodes, latent, warned):
    from comfyui_fluxir.nodes.few_steps import _starts_empty

    graph = {
        "1": ("FluxIRDistilledSigmas", {"steps": 4}),
        "2": ("SamplerCustomAdvanced", {"sigmas": ["1", 0], "latent_image": latent}),
        "3": ("EmptySD3LatentImage", {}),
        "4": ("FluxIREncodePhoto", {}),
        "5": ("VAEEncode", {}),
    }
    assert _starts_empty(graph, SimpleNamespace(hidden=SimpleNamespace(unique_id="1"))) == warned
    assert not _starts_empty(graph, SimpleNamespace(hidden=SimpleNamespace(unique_id="9")))


def test_a_large_photo_is_told_what_it_will_take_after_its_first_tile(nodes, vae, monkeypatch):
    from comfyui_fluxir.nodes import photo

    said = []
    monkeypatch.setattr(photo, "show", lambda _node, text: said.append(text))
    monkeypatch.setattr(photo, "TILE", 64)
    clock = iter(range(0, 1000, 20))  # every look at it 20 s later
    monkeypatch.setattr(photo.time, "perf_counter", lambda: next(clock))
    image = torch.rand(1, 100, 140, 3)
    latent = nodes.EncodePhoto.execute(image, vae).result[0]
    nodes.DecodePhoto.execute(latent, vae, image)
    count = photo.tile_count(112 // 8, 144 // 8, 64 // 8, photo.OVERLAP)
    text = f"144 x 112 pixels in {count} tiles of up to 64: about {round(20 * count / 60)} min"
    assert count > 5 and said == [text, text]
    nodes.EncodePhoto.execute(image[:, :64, :64], vae)
    assert len(said) == 2


def test_a_tiled_model_says_what_all_steps_will_take(nodes, host, monkeypatch):
    from comfyui_fluxir.nodes import tile_hooks, tiles

    said = []
    monkeypatch.setattr(tiles, "speaker", lambda _node: said.append)
    monkeypatch.setattr(tile_hooks, "MOST_AT_ONCE", 1)
    model = nodes.TileModel.execute(host.model, 64, 0.25).result[0]
    host.sample(model, noise=random_latent(1, 1, 12, 12))
    assert len(said) == 2 and said[1].startswith(f"{said[0]}: about ") and " a step, " in said[1] and said[1].endswith(" steps")


def test_a_table_stands_on_a_node_in_columns(nodes):
    from comfyui_fluxir.nodes.evaluate import plain

    table = "| metric | value |\n|---|---|\n| psnr ↑ | 24.9 |\n| closeness ↑ | 31.93 |\n\n- lpips skipped: its weights are missing"
    assert plain(table) == "metric       value\npsnr ↑       24.9\ncloseness ↑  31.93\n- lpips skipped: its weights are missing"
