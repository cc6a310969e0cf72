"""The pack's nodes and a tiny FLUX in the ComfyUI of this process, for the subjects that call nodes."""

import asyncio

import pytest

from ..hosts.conftest import comfy, host, vae  # noqa: F401  fixtures


@pytest.fixture(scope="package")
def drawer(comfy, host, vae, tmp_path_factory):  # noqa: F811
    """A node_inputs.Drawer over every node of the pack."""
    import comfyui_fluxir
    import folder_paths

    from ..hosts.lucidflux_host import LucidFluxHost
    from ..hosts.tiny import write_tiny_lora, write_tiny_student
    from .node_inputs import Drawer

    folder, output = tmp_path_factory.mktemp("nodes"), folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(folder / "output"))
    write_tiny_lora(folder / "ummf.safetensors")
    write_tiny_student(folder / "student.safetensors")
    lucidflux = LucidFluxHost(host, folder).lucidflux

    async def listed():
        return await (await comfyui_fluxir.comfy_entrypoint()).get_node_list()

    kinds = {node.define_schema().node_id: node for node in asyncio.run(listed())}
    files = {f"{host.folder.name}.safetensors", "ummf.safetensors", "student.safetensors", "lucidflux.safetensors"}
    yield Drawer(kinds, host.model, vae, lucidflux, files)
    folder_paths.set_output_directory(output)
