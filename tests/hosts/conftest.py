"""A real ComfyUI for the tests: in this process (the newest) and as a server (the newest and the oldest supported)."""

import asyncio
import os
import sys

import pytest
import torch
from comfyui_fluxir.demo.comfyui import ComfyUIServer
from comfyui_fluxir.demo.environment import NEWEST, OLDEST, comfyui_path
from comfyui_fluxir.fluxir_core.flux.keymap import bfl_to_diffusers
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids

from .public_restorers import add_nodes
from .tiny import flux_weights
from .workflow_host import free_port


@pytest.fixture(scope="session")
def comfy():
    """ComfyUI's `comfy` package, importable in this process, on the CPU."""
    # ComfyUI is no installable package: it is made to be started in its folder.
    sys.path.insert(0, os.path.realpath(comfyui_path(NEWEST)))
    import comfy.options
    from comfy.cli_args import args

    args.cpu = True
    import comfy.sd  # noqa: F401

    import nodes  # noqa: F401

    return sys.modules["comfy"]


@pytest.fixture(scope="session")
def schemas(comfy):
    """{node_id: Schema} of every node of the pack."""
    import comfyui_fluxir

    async def listed():
        extension = await comfyui_fluxir.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    nodes = asyncio.run(listed())
    return {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}


@pytest.fixture(scope="session", params=[NEWEST, OLDEST])
def server(request, tmp_path_factory):
    """A running ComfyUIServer with the pack linked in: `url`, `base`, `get`, `run`."""
    base = tmp_path_factory.mktemp("comfyui")
    add_nodes(base)
    with ComfyUIServer(comfyui_path(request.param), base, free_port()) as running:
        yield running


@pytest.fixture(scope="session")
def host(comfy, tmp_path_factory):
    """A tiny FLUX with its adapter, loaded in this process: a comfy_host.Host."""
    from .comfy_host import Host

    return Host(tmp_path_factory.mktemp("tiny"), excitation=0.1)


@pytest.fixture(scope="session")
def vae(host):
    """The tiny FLUX's VAE as ComfyUI loads it."""
    import comfy.sd
    import comfy.utils

    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(host.paths["vae"])))


@pytest.fixture(scope="module")
def lucid(host, tmp_path_factory):
    """`host` with a tiny LucidFlux: a lucidflux_host.LucidFluxHost."""
    from .lucidflux_host import LucidFluxHost

    return LucidFluxHost(host, tmp_path_factory.mktemp("lucidflux"))


@pytest.fixture(scope="module")
def ummf(host):
    """The module of UMMF's nodes."""
    from comfyui_fluxir.nodes import ummf

    return ummf


@pytest.fixture(scope="module")
def ummf_loras(host, tmp_path_factory):
    """The folder of ComfyUI's with the files of ummf_host.write_loras."""
    import folder_paths

    from .ummf_host import write_loras

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)
    write_loras(folder)
    folder_paths.filename_list_cache.clear()
    return folder


@pytest.fixture
def transformer():
    """A tiny diffusers FLUX of random weights."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=2,
        num_attention_heads=1,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=True,
    )
    model.load_state_dict(bfl_to_diffusers(flux_weights()))
    return model.eval().requires_grad_(False)


@pytest.fixture
def given():
    """One call's inputs for it."""
    torch.manual_seed(0)
    ids = image_ids(8, 8)
    return dict(
        tokens=torch.randn(2, 16, 64),
        t=torch.tensor([0.25, 1.0]),
        text=torch.randn(2, 8, 64),
        pooled=torch.randn(2, 32),
        image_ids=ids,
        guidance=torch.full((2,), 4.0),
    )
