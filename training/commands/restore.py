"""`fluxir restore`: restores an image on diffusers, without ComfyUI."""

import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from ...fluxir_core.execution.tiles import TiledRun
from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.searches.presets import PRESETS
from ...fluxir_core.searches.search import estimate_cost
from ...fluxir_core.verify.ensemble import DefaultEnsemble
from ..diffusers_host.model_folder import LATENT
from ..diffusers_host.restorer import PATCH, TILES_AT_ONCE, Restorer

PER_IMAGE = ("score", "baseline_score", "winner")


VAE_TILE = 64
"""Latent pixels a side in which `--tile` codes images."""


def add_arguments(parser):
    parser.add_argument("input", type=Path, metavar="IN", help="the degraded image")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the restored image is written")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the output over the input's (default 1)")
    parser.add_argument("--model", default="miniature", help="'miniature' or a model folder (see the README)")
    parser.add_argument("--adapter", choices=("fluxir", "ummf"), default="fluxir", help="what shows the model the image")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default 20)")
    parser.add_argument("--few-steps", type=int, metavar="N", help="N steps, by the folder's student: 1, 2 or 4")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="restore in tiles of this size, images of any size")
    parser.add_argument(
        "--fidelity", type=float, default=0.0, help="how near to stay to the degraded image: 0 (default) to 1, which is it"
    )
    parser.add_argument("--preset", choices=PRESETS, help="search for a better image at test time (see `fluxir estimate_cost`)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report: seconds, NFE, seed, sizes, the search's log")


def run(arguments):
    from ...fluxir_core.image.files import load_image, save_image

    if arguments.steps < 1:
        raise SystemExit(f"fluxir restore: --steps is {arguments.steps}; use at least 1.")
    if not 0.25 <= arguments.scale <= 8:
        raise SystemExit(f"fluxir restore: --scale is {arguments.scale}; use a value from 0.25 to 8.")
    if not 0 <= arguments.fidelity <= 1:
        raise SystemExit(f"fluxir restore: --fidelity is {arguments.fidelity}; use a value from 0 to 1.")
    if arguments.few_steps is not None and (arguments.preset or arguments.tile):
        raise SystemExit("fluxir restore: --few-steps goes with neither --preset nor --tile; choose one.")
    if arguments.tile is not None and arguments.tile < 64:
        raise SystemExit(f"fluxir restore: --tile is {arguments.tile} pixels; use at least 64.")
    image = load_image(arguments.input)[None]
    if arguments.scale != 1:
        size = [max(PATCH, round(extent * arguments.scale)) for extent in image.shape[-2:]]
        image = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    on_gpu = torch.cuda.is_available()
    machine = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    restorer = Restorer(arguments.model, *machine, arguments.adapter)
    settings = {"steps": arguments.steps, "shift": 1.15}
    tile = None
    if arguments.tile:
        tile = TiledRun(arguments.tile // LATENT, TILES_AT_ONCE)
        restorer.vae.tile = VAE_TILE
    started = time.perf_counter()
    if arguments.preset:
        algorithm = PRESETS[arguments.preset]
        total = estimate_cost(algorithm, flux_sigmas(**settings))["nfe"]
        with tqdm(total=total, desc=f"searching ({arguments.preset})", disable=None) as bar:
            found, searched = restorer.search(
                image,
                [arguments.seed],
                algorithm,
                DefaultEnsemble(),
                **settings,
                tile=tile,
                callback=bar.update,
                fidelity=arguments.fidelity,
            )
        searched |= {name: value[0] if value else None for name, value in searched.items() if name in PER_IMAGE}
    elif arguments.few_steps is not None:
        found = restorer.restore_few_steps(image, [arguments.seed], arguments.few_steps, fidelity=arguments.fidelity)
        searched = {"nfe": arguments.few_steps, "nfe_planned": arguments.few_steps}
    else:
        with tqdm(total=arguments.steps, desc="restoring", disable=None) as bar:
            found = restorer.restore(
                image,
                [arguments.seed],
                **settings,
                tile=tile,
                callback=lambda *_: bar.update(),
                fidelity=arguments.fidelity,
            )
        searched = {"nfe": arguments.steps, "nfe_planned": arguments.steps}
    seconds = time.perf_counter() - started
    save_image(found[0], arguments.output)
    if arguments.json:
        height, width = found.shape[-2:]
        report = {
            **searched,
            "input": str(arguments.input),
            "output": str(arguments.output),
            "width": width,
            "height": height,
            "steps": arguments.steps,
            "seed": arguments.seed,
            "seconds": round(seconds, 3),
            "adapter": arguments.adapter,
            "preset": arguments.preset,
            "tile": tile and tile.tile * LATENT,
            "fidelity": arguments.fidelity,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
