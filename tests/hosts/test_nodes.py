"""The nodes as an artist meets them: their texts, the loader, the empty prompt and what they refuse."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .tiny import TINY, flux_weights, write_tiny

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import adapter
    from comfyui_fluxir.nodes.folders import register_model_folders

    register_model_folders()
    return adapter


@pytest.fixture(scope="module")
def tiny(nodes, tmp_path_factory):
    import comfy.sd
    import folder_paths

    paths = write_tiny(tmp_path_factory.mktemp("tiny"))
    folder_paths.add_model_folder_path(nodes.ADAPTERS, str(paths["fluxir_adapters"].parent), is_default=True)
    model = comfy.sd.load_diffusion_model(str(paths["diffusion_models"]))
    adapter = nodes.LoadFluxIRAdapter.execute(paths["fluxir_adapters"].name).result[0]
    return SimpleNamespace(paths=paths, model=model, adapter=adapter, folder=paths["fluxir_adapters"].parent)


def apply(nodes, tiny, model=None, samples=None, strength=1.0, start=0.0, end=1.0):
    samples = torch.zeros(1, 16, 8, 8) if samples is None else samples
    return nodes.ApplyFluxIRAdapter.execute(model or tiny.model, tiny.adapter, {"samples": samples}, strength, start, end).result[0]


# Texts


@pytest.mark.parametrize("name", ["LoadFluxIRAdapter", "ApplyFluxIRAdapter", "EmptyPrompt"])
def test_every_node_explains_itself(nodes, name):
    schema = getattr(nodes, name).define_schema()
    assert schema.display_name and schema.description and schema.search_aliases and schema.category == "FluxIR"
    for part in [*schema.inputs, *schema.outputs]:
        assert part.tooltip, f"{name}: {part.id} has no tooltip"
    page = (PACK / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    for part in [*schema.inputs, *schema.outputs]:
        assert f"`{part.id or part.display_name}`" in page, f"{schema.node_id}.md does not mention {part.id}"


def test_every_float_input_has_a_step(nodes):
    floats = [i for i in nodes.ApplyFluxIRAdapter.define_schema().inputs if hasattr(i, "round")]
    assert len(floats) == 3 and all(i.step for i in floats)


def test_bundled_folders_come_last_in_the_search_order(nodes):
    import folder_paths

    for key in ("diffusion_models", "vae", "loras"):
        paths = folder_paths.get_folder_paths(key)
        assert Path(paths[-1]).parts[-3:] == ("models", "miniature", key) and len(paths) > 1
    assert folder_paths.folder_names_and_paths["fluxir_adapters"][1] == {".safetensors"}


# Load FluxIR Adapter


def test_the_loaded_adapter_has_the_files_weights_and_sizes(tiny):
    network, stored = tiny.adapter.patcher.model, load_file(tiny.paths["fluxir_adapters"])
    loaded = network.state_dict()
    assert network.config.dims == TINY
    assert all(torch.equal(loaded[name], weight) for name, weight in stored.items() if name in loaded)
    assert not {name for name, _ in network.named_parameters()} - set(stored)


def test_a_flux_models_dimensions_are_those_of_its_weights(nodes, tiny):
    from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions

    expected = FluxDimensions.from_state_dict(load_file(tiny.paths["diffusion_models"]))
    assert nodes.flux_dimensions(tiny.model.model.diffusion_model) == expected == TINY


def test_a_broken_file_is_refused_by_the_loader(nodes, tiny):
    whole = tiny.paths["fluxir_adapters"].read_bytes()
    (tiny.folder / "broken.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="^Load FluxIR Adapter: broken.safetensors cannot be read"):
        nodes.LoadFluxIRAdapter.execute("broken.safetensors")


# Empty Prompt


def test_without_a_stored_embedding_the_empty_prompt_is_zero(nodes, tiny):
    [[text, extra]] = nodes.EmptyPrompt.execute(tiny.adapter).result[0]
    assert text.shape == (1, 8, TINY.context_dim) and not text.any()
    assert extra["pooled_output"].shape == (1, TINY.vec_dim) and not extra["pooled_output"].any()
    assert extra["guidance"] == 4.0


def test_a_stored_embedding_is_the_empty_prompt(nodes, tiny):
    with safe_open(tiny.paths["fluxir_adapters"], "pt") as file:
        metadata = file.metadata()
    stored = {"null_text": torch.rand(8, TINY.context_dim), "null_pooled": torch.rand(TINY.vec_dim)}
    weights = load_file(tiny.paths["fluxir_adapters"]) | stored
    save_file(weights, tiny.folder / "with-null.safetensors", metadata)
    adapter = nodes.LoadFluxIRAdapter.execute("with-null.safetensors").result[0]
    [[text, extra]] = nodes.EmptyPrompt.execute(adapter).result[0]
    assert torch.equal(text[0], stored["null_text"])
    assert torch.equal(extra["pooled_output"][0], stored["null_pooled"])


# Refusals of Apply FluxIR Adapter


class NunchakuFluxTransformer(torch.nn.Module):
    """Has FLUX's name but not ComfyUI's class, as nunchaku's has."""


def kind_of_model(name):
    """A model as ComfyUI names its kinds: by their class."""
    return type(name, (), {})()


def test_a_model_of_another_kind_is_refused_by_its_name(nodes, tiny):
    model = SimpleNamespace(model=kind_of_model("SD3"), get_model_object=lambda _: torch.nn.Linear(1, 1))
    with pytest.raises(
        ValueError, match="^Apply FluxIR Adapter: this model is of the kind SD3, but a FLUX.1 model is needed; load one"
    ):
        apply(nodes, tiny, model)


def test_another_packs_flux_is_refused(nodes, tiny):
    model = SimpleNamespace(model=kind_of_model("Flux"), get_model_object=lambda _: NunchakuFluxTransformer())
    with pytest.raises(
        ValueError, match="^Apply FluxIR Adapter: this FLUX model comes from a loader that replaces its network, such as nunchaku"
    ):
        apply(nodes, tiny, model)


def test_an_adapter_for_another_base_is_refused(nodes, tiny, tmp_path):
    import comfy.sd

    save_file(flux_weights(replace(TINY, double_blocks=3)), tmp_path / "other.safetensors")
    other = comfy.sd.load_diffusion_model(str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="^Apply FluxIR Adapter: .*safetensors: .*double_blocks 2 instead of 3"):
        apply(nodes, tiny, other)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 16, 1, 8, 8)])
def test_latents_of_another_vae_are_refused(nodes, tiny, shape):
    with pytest.raises(ValueError, match="^Apply FluxIR Adapter: the degraded latent is another kind of model's .*own VAE"):
        apply(nodes, tiny, samples=torch.zeros(shape))


def test_an_empty_range_is_refused(nodes, tiny):
    with pytest.raises(ValueError, match="start_percent 0.6 is not below end_percent 0.4"):
        apply(nodes, tiny, start=0.6, end=0.4)


def test_the_degraded_latent_is_kept_in_network_space(nodes, tiny):
    samples = torch.rand(1, 16, 8, 8)
    model = apply(nodes, tiny, samples=samples)
    injection = model.callbacks["on_cleanup"]["fluxir"][0].__self__
    torch.testing.assert_close(injection.lq, (samples - 0.1159) * 0.3611)


def test_strength_zero_adds_nothing_to_the_model(nodes, tiny):
    model = apply(nodes, tiny, strength=0.0)
    assert not model.wrappers.get("diffusion_model") and not model.get_additional_models()
