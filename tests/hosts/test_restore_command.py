"""`fluxir restore`, on tiny weights: what it refuses, and what it keeps of a file."""

import numpy as np
import pytest
import torch
from comfyui_fluxir.training.cli import main
from PIL import Image
from safetensors.torch import load_file, save_file

from .tiny import write_tiny


@pytest.fixture
def folder(tmp_path):
    """A tiny model folder with a degraded image in it."""
    write_tiny(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 72, 3), dtype=np.uint8)).save(tmp_path / "in.png")
    return tmp_path


def restore(folder, name="in.png", out="out.png", *options):
    """Runs the command in `folder` in two steps; the path of its output."""
    main(["restore", str(folder / name), str(folder / out), "--model", str(folder), "--steps", "2", *options])
    return folder / out


@pytest.mark.parametrize(
    ("file", "key", "named"),
    [
        ("diffusion_models/mini-flux.safetensors", "img_in.weight", "base model or its adapter"),
        ("vae/mini-flux-vae.safetensors", "taesd_encoder.0.weight", "VAE's encoder"),
        ("vae/mini-flux-vae.safetensors", "taesd_decoder.19.weight", "VAE's decoder"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--preset", "best_of_n")])
def test_a_model_that_gives_nan_is_named_and_no_black_image_is_written(folder, file, key, named, options):
    weights = load_file(folder / file)
    weights[key].flatten()[0] = torch.nan
    save_file(weights, folder / file)
    with pytest.raises(SystemExit, match=f"^fluxir restore: --model: .*'s {named} gives NaN or infinity in float32; download"):
        restore(folder, "in.png", "out.png", *options)
    assert not (folder / "out.png").exists()
