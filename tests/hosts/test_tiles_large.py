"""The bundled miniature in tiles: four megapixels in ComfyUI, `fluxir restore --tile`, and the gate on seams."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from comfyui_fluxir.fluxir_core.flow.tiles import TileGrid, TiledRun
from comfyui_fluxir.fluxir_core.image.seams import seam_score
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.miniature.held_out import held_out_photos
from comfyui_fluxir.training.restore import Restorer

from .workflow_host import PACK

GATE = 1.4
"""The most that tiling may score on what it has changed against the untiled restoration; without overlap it scores more."""


def borders(side, tile, overlap):
    """Pixel positions of a square latent's tile borders."""
    grid = TileGrid(side // 8, side // 8, tile // 8, overlap)
    return [[8 * place for place in axis] for axis in grid.borders]


@pytest.fixture(scope="module")
def degraded():
    """A photo with noise; (1, 3, 256, 256)."""
    photo = held_out_photos()["trees"][None]
    return (photo + 0.1 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_no_seam_shows_and_the_gate_would_see_one(degraded):
    restorer = Restorer("miniature")
    whole = restorer.restore(degraded, [0], steps=1)[0]

    def score(overlap):
        tiled = restorer.restore(degraded, [0], steps=1, tile=TiledRun(16, 8, overlap))[0]
        return seam_score(tiled - whole, *borders(256, 128, overlap))

    assert score(0.25) < GATE < score(0)
    with pytest.raises(ValueError, match="no border"):  # in one piece there is none
        seam_score(whole, *borders(256, 256, 0.25))


def test_four_megapixels_in_comfyui(comfy, degraded):
    import folder_paths
    from nodes import UNETLoader, VAEDecodeTiled, VAEEncodeTiled, VAELoader, common_ksampler

    from comfyui_fluxir.nodes.adapter import ApplyFluxIRAdapter, LoadFluxIRAdapter, NullTextConditioning
    from comfyui_fluxir.nodes.folders import ADAPTERS, register_model_folders
    from comfyui_fluxir.nodes.tiles import TileModel

    register_model_folders()
    (name,) = (path.name for path in (PACK / "models" / "miniature" / "fluxir_adapters").glob("*.safetensors"))
    assert name in folder_paths.get_filename_list(ADAPTERS)
    with torch.inference_mode():
        (vae,) = VAELoader().load_vae("mini-flux-vae.safetensors")
        (model,) = UNETLoader().load_unet("mini-flux.safetensors", "default")
        (adapter,) = LoadFluxIRAdapter.execute(name).result
        # The autoencoder's width makes 4 megapixels a matter of minutes in core's three passes: one corner is encoded, and
        # mirrored in the latent; one place is decoded.
        (corner,) = VAEEncodeTiled().encode(vae, degraded.movedim(1, -1), 256, 64)
        rows = torch.cat([corner["samples"], corner["samples"].flip(-1)], -1)
        samples = torch.cat([rows, rows.flip(-2)], -2).repeat(1, 1, 4, 4)
        (restoring,) = ApplyFluxIRAdapter.execute(model, adapter, {"samples": samples}, 1.0, 0.0, 1.0).result
        (tiled,) = TileModel.execute(restoring, 256, 0.25).result
        (prompt,) = NullTextConditioning.execute(adapter).result
        empty = {"samples": torch.zeros_like(samples)}
        (restored,) = common_ksampler(tiled, 0, 2, 1.0, "euler", "simple", prompt, prompt, empty)
        assert restored["samples"].shape == (1, 16, 256, 256)
        (picture,) = VAEDecodeTiled().decode(vae, {"samples": restored["samples"][..., 96:144, 96:144]}, 256, 64)
    shown = [[place - 8 * 96 for place in axis if 96 < place / 8 < 144] for axis in borders(2048, 256, 0.25)]
    assert seam_score(picture[0].movedim(-1, 0), *shown) < 1.25


def test_the_command_line_restores_in_tiles(degraded, tmp_path):
    strip = degraded[0, :, :45]  # 45 x 256: no multiple of a latent, and one side shorter than a tile
    Image.fromarray((strip.movedim(0, -1) * 255).byte().numpy()).save(tmp_path / "degraded.png")
    report = tmp_path / "report.json"

    def restore(*options):
        out = tmp_path / "restored.png"
        main(["restore", str(tmp_path / "degraded.png"), str(out), "--steps", "1", "--json", str(report), *options])
        with Image.open(out) as picture:
            return torch.from_numpy(np.array(picture)).float()

    whole, tiled, enough = restore(), restore("--tile", "128"), restore("--tile", "256")
    assert tiled.shape == (45, 256, 3) and torch.equal(enough, whole)
    assert json.loads(report.read_text())["tile"] == 256
    assert 0 < (tiled - whole).abs().mean() < 10


def test_a_tile_too_small_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="--tile is 32 pixels; use at least 64"):
        main(["restore", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--tile", "32"])


def test_the_autoencoder_in_tiles_is_near_the_one_in_one_piece(degraded):
    vae = Restorer("miniature").vae
    latents = vae.encode(degraded)
    pictures = vae.decode(latents)
    vae.tile = 16
    assert (vae.encode(degraded) - latents).norm() < 0.05 * latents.norm()
    tiled = vae.decode(latents)
    assert tiled.shape == pictures.shape and (tiled - pictures).norm() < 0.05 * pictures.norm()
    vae.tile = 32
    assert torch.equal(vae.decode(latents), pictures)
