"""LucidFlux at the public file's size: 3.4 GB of random weights, through ComfyUI's loader, beside a few blocks of FLUX.1-dev's width.

It takes 8 GB of disk and up to 12 GB of memory. A base of 2 double blocks and 1 single one does the arithmetic of FLUX.1-dev's 57:
its blocks are as wide, and LucidFlux's residuals come in turn from two blocks.
"""

import json
import math
import shutil
import time

import pytest
import torch

from ..unit.lucidflux_reference import layout
from .comfy_host import random, random_latent
from .tiny import flux_weights

resource = pytest.importorskip("resource")  # Linux and macOS measure with it

GIB = 2**30
DEV = dict(hidden=3072, context=4096, vec=768, features=1152, inner=12288)
PIXELS, TEXT, SEEN = 128, 512, 1024
"""Sides of the image, tokens of T5, and tokens of SigLIP 2 so400m patch16-512."""


def write_random(path, shapes, seed=0, chunk=2**24 + 43):
    """Writes a safetensors file of weights of sensible size, {name: shape}, one after the other: in bfloat16, the connector's in
    float32, which gives the 3.39 GB of the public file. The random numbers repeat after a while, at another place in each weight."""
    kinds = {name: torch.float32 if name.startswith("connector") else torch.bfloat16 for name in shapes}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = kinds[name].itemsize * math.prod(shape)
        header[name] = {
            "dtype": "F32" if kinds[name] == torch.float32 else "BF16",
            "shape": list(shape),
            "data_offsets": [at, at + size],
        }
        at += size
    drawn = torch.randn(chunk, generator=torch.Generator().manual_seed(seed))
    text = json.dumps(header).encode()
    place = 0
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            scale = 0.02 if name.endswith(("scale", "_norm.weight")) else 1 / math.sqrt(math.prod(shape[1:]) or 1)
            scaled = (drawn * scale + (scale == 0.02)).to(kinds[name])
            left = math.prod(shape)
            while left:
                part = scaled[place : place + left]
                file.write(part.view(torch.uint8).numpy().data)
                left, place = left - len(part), (place + len(part)) % chunk
    return at


def base_layout():
    """{name: shape} of a FLUX as wide as FLUX.1-dev, with 2 double blocks and 1 single one."""
    from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions

    dims = FluxDimensions(3072, 24, 4096, 768, 2, 1, True)
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *shape, generator: torch.empty(shape))
        return {name: weight.shape for name, weight in flux_weights(dims).items()}


@pytest.mark.full
def test_the_public_file_steers_flux_at_its_own_size(comfy, tmp_path, record_property):
    import comfy.sample
    import comfy.sd
    import folder_paths
    import psutil
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFlux, LoadLucidFlux

    if psutil.virtual_memory().available < 12 * GIB or shutil.disk_usage(tmp_path).free < 8 * GIB:
        pytest.skip("needs 12 GB of memory and 8 GB of disk")
    written = write_random(tmp_path / "lucidflux.safetensors", layout(**DEV))
    assert round(written / 1e9, 2) == 3.39
    write_random(tmp_path / "flux.safetensors", base_layout(), 1)
    folder_paths.add_model_folder_path("model_patches", str(tmp_path), is_default=True)
    started = time.monotonic()
    lucidflux = LoadLucidFlux.execute("lucidflux.safetensors").result[0]
    loaded = time.monotonic() - started
    model = comfy.sd.load_diffusion_model(str(tmp_path / "flux.safetensors"))
    generator = torch.Generator().manual_seed(2)
    images = [torch.rand(1, PIXELS, PIXELS, 3, generator=generator) for _ in range(3)]
    seen = {"last_hidden_state": random(5, 1, SEEN, DEV["features"])}
    prompt = [[random(3, 1, TEXT, DEV["context"]), {"pooled_output": random(4, 1, DEV["vec"]), "guidance": 4.0}]]
    noise, seconds = random_latent(2, 1, PIXELS // 8, PIXELS // 8), {}

    def sampled(name, model):
        started = time.monotonic()
        with torch.inference_mode():
            found = comfy.sample.sample(
                model, noise, 1, 1.0, "euler", "simple", prompt, prompt, torch.zeros_like(noise), disable_pbar=True, seed=0
            )
        seconds[name] = round(time.monotonic() - started, 1)
        assert found.isfinite().all()
        return found

    def apply(degraded, strength=1.0):
        return ApplyLucidFlux.execute(model, lucidflux, degraded, images[1], seen, strength, 0.0, 1.0).result[0]

    bare = sampled("bare", model)
    assert torch.equal(sampled("strength 0", apply(images[0], 0.0)), bare)
    steered = sampled("steered", apply(images[0]))
    other = sampled("another image", apply(images[2]))
    assert (steered - bare).abs().mean() > 1e-3 and (other - steered).abs().mean() > 1e-4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nLucidFlux at full size: loaded in {loaded:.1f} s, peak {peak:.1f} GB of memory, seconds a call {seconds}")
    assert peak < 12
