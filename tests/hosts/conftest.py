"""A real ComfyUI for the tests: in this process (the newest) and as a server (the newest and the oldest supported)."""

import os
import socket
import sys

import pytest

from comfyui_fluxir.demo.comfyui import ComfyUIServer
from comfyui_fluxir.demo.environment import NEWEST, OLDEST, comfyui_path


@pytest.fixture(scope="session")
def comfy():
    """ComfyUI's `comfy` package, importable in this process, on the CPU."""
    # ComfyUI is no installable package: it is made to be started in its folder.
    sys.path.insert(0, os.path.realpath(comfyui_path(NEWEST)))
    import comfy.options  # noqa: F401  (keeps ComfyUI from reading pytest's arguments)
    from comfy.cli_args import args

    args.cpu = True
    import comfy.sd  # noqa: F401
    import nodes  # noqa: F401

    return sys.modules["comfy"]


@pytest.fixture(scope="session", params=[NEWEST, OLDEST])
def server(request, tmp_path_factory):
    """A running ComfyUIServer with the pack linked in: `url`, `base`, `get`, `run`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ComfyUIServer(comfyui_path(request.param), tmp_path_factory.mktemp("comfyui"), port) as running:
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
