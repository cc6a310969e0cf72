"""`fluxir restore`: restores an image, or a folder of them, on diffusers, without ComfyUI."""

import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from ...fluxir_core.execution.oom import is_out_of_memory
from ...fluxir_core.execution.tiled_vae import LATENT
from ...fluxir_core.execution.tiles import TiledRun
from ...fluxir_core.flow.rectified_flow import flux_sigmas
from ...fluxir_core.image.files import SUFFIXES, LoadedImage, check_suffix, image_bytes, image_size, read_image
from ...fluxir_core.image.folder import images_under, result_name
from ...fluxir_core.image.lost_detail import give_back_detail
from ...fluxir_core.image.padding import TOKEN
from ...fluxir_core.searches.presets import PRESETS
from ...fluxir_core.searches.search import estimate_cost
from ...fluxir_core.verify.named import NAMED, PROMPTED, ensemble_named
from ..arguments import number, seed, steps, whole
from ..diffusers_host.model_folder import model_folder
from ..diffusers_host.restorer import TILES_AT_ONCE, Restorer
from ..fluxgen.work import Rank, keep_settings
from ..outputs import check_apart, check_file, check_folder, deliver_data

ADAPTERS = ("fluxir", "ummf", "lucidflux")
PER_IMAGE = ("score", "baseline_score", "gain", "winner")
VAE_TILE = 64
"""Latent pixels a side in which `--tile` codes images."""
BAR = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
SETTINGS = (
    "scale",
    "model",
    "adapter",
    "cleaned",
    "steps",
    "few_steps",
    "seed",
    "tile",
    "fidelity",
    "give_back",
    "preset",
    "prompt",
    "verifiers",
)
"""What an image in an output folder depends on: a run with others does not go on there."""
VERIFIERS = "fluxir_verifiers"
"""The folder of the model folder with the verifiers' weights, laid out as ComfyUI's models/fluxir_verifiers."""


def add_arguments(parser):
    parser.add_argument("input", type=Path, metavar="IN", help="the degraded image, or a folder of images and folders")
    parser.add_argument("output", type=Path, metavar="OUT", help="the restored image's file, or the folder for all; resumes there")
    parser.add_argument("--scale", type=number(0.25, 8), default=1.0, help="size of the output over the input's (default 1)")
    parser.add_argument("--model", default="miniature", help="'miniature' or a model folder (see docs/command-line.md)")
    parser.add_argument("--adapter", choices=ADAPTERS, default="fluxir", help="what shows the model the image")
    parser.add_argument(
        "--cleaned",
        type=Path,
        metavar="PATH",
        help="what a degradation remover makes of IN, for --adapter lucidflux: a file, or a folder with files of the same names",
    )
    parser.add_argument("--prompt", default="", help="what the image shows; needs the model's text encoders (default: no prompt)")
    parser.add_argument("--steps", type=steps, default=20, help="sampling steps (default 20)")
    parser.add_argument("--few-steps", type=steps, metavar="N", help="N steps, by the folder's student: 1, 2 or 4")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the noise (default 0)")
    parser.add_argument("--tile", type=whole(64), metavar="PIXELS", help="restore in tiles of this size, images of any size")
    parser.add_argument(
        "--fidelity", type=number(0, 1), default=0.0, help="how near to stay to the degraded image: 0 (default) to 1, which is it"
    )
    parser.add_argument(
        "--give-back",
        type=number(0, 1),
        default=0.0,
        metavar="X",
        help="how much fine detail of the input that the VAE loses to give back: 0 (default) to 1; noise is left out",
    )
    parser.add_argument("--preset", choices=PRESETS, help="search for a better image at test time (see `fluxir plan`)")
    parser.add_argument(
        "--verifiers",
        nargs="+",
        metavar="NAME",
        help=f"what a search chooses by: {', '.join(NAMED)}, or a metric of pyiqa (default natural_image)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report: seconds, NFE, seed, sizes, the search's log")


def run(arguments):
    if arguments.few_steps is not None and (arguments.preset or arguments.tile):
        raise ValueError("--few-steps goes with neither --preset nor --tile; choose one.")
    if (arguments.cleaned is None) == (arguments.adapter == "lucidflux"):
        raise ValueError("--cleaned goes with --adapter lucidflux, and lucidflux with it; give both or neither.")
    if arguments.verifiers and not arguments.preset:
        raise ValueError("--verifiers goes with a search; add --preset.")
    for name in PROMPTED:
        if name in (arguments.verifiers or ()) and not arguments.prompt:
            raise ValueError(f"--verifiers {name} compares the image with a text; add --prompt.")
    if arguments.json:
        check_file("--json", arguments.json)
    check_apart({"OUT": arguments.output, "--json": arguments.json}, {"IN": arguments.input})
    if arguments.input.is_dir():
        _restore_folder(arguments)
        return
    check_file("OUT", arguments.output)
    check_suffix(arguments.output)
    image = read_image(arguments.input)
    check_suffix(arguments.output, _size_of_result(image, arguments.scale))
    job = _Job(arguments)
    with tqdm(total=1.0, desc="restoring", bar_format=BAR, disable=None) as bar:
        report = job(image, arguments.input, arguments.output, bar.update)
    _tell(arguments.input, report)
    if arguments.json:
        deliver_data(arguments.json, json.dumps(report, indent=2) + "\n")


def _restore_folder(arguments):
    """Restores every image under the input folder, in so far as the output folder lacks it."""
    source, out, rank = arguments.input, arguments.output, Rank.here()
    check_folder("OUT", out)
    places = {path: out / result_name(path.relative_to(source)) for path in images_under(source, out)}
    if not places:
        raise ValueError(f"IN: {source} holds no image ({', '.join(sorted(SUFFIXES))}); give another folder.")
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    settings |= {"model": model_folder(arguments.model).name, "cleaned": arguments.cleaned and str(arguments.cleaned)}
    with rank.holding(out, "OUT"):
        keep_settings(out, settings, "fluxir.json")
        own = rank.own(places.items())
        lacking = {path: place for path, place in own if not place.exists()}
        if len(own) > len(lacking):
            print(f"{len(own) - len(lacking)} of {len(own)} images are in {out} already.")
        reports, skipped = [], []
        try:
            if lacking:
                _restore_all(_Job(arguments, rank.device), lacking, reports, skipped)
        finally:
            if arguments.json:
                deliver_data(arguments.json, json.dumps({"restored": reports, "skipped": skipped}, indent=2) + "\n")
    if skipped:
        print(f"skipped {len(skipped)}:", *(f"- {reason}" for reason in skipped), sep="\n")
    if skipped and len(skipped) == len(own):
        raise ValueError(f"none of {len(own)} images could be restored; see the reasons above.")


def _restore_all(job, lacking, reports, skipped):
    """Restores the images `lacking` {path: place of the result}: one bar, whose time follows their pixels."""
    sizes = {path: _pixels(path) for path in lacking}
    with tqdm(total=sum(sizes.values()), bar_format=BAR, disable=None) as bar:
        for number, (path, place) in enumerate(lacking.items(), 1):
            bar.set_description_str(f"image {number} of {len(lacking)}")
            before = bar.n
            try:
                image = read_image(path)
                check_suffix(place, _size_of_result(image, job.arguments.scale))
            except ValueError as error:
                skipped.append(str(error))
            else:
                try:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    reports.append(job(image, path, place, lambda share, path=path: bar.update(share * sizes[path])))
                    _tell(path, reports[-1])
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    skipped.append(f"{path}: memory ran out; restore it with --tile.")
            bar.update(before + sizes[path] - bar.n)


def _pixels(path):
    try:
        height, width = image_size(path)
        return height * width
    except ValueError:
        return 0  # it is skipped


def _tell(path, report):
    if report["not_kept"]:
        tqdm.write(f"{path}: {'; '.join(report['not_kept'])}.")


class _Job:
    """Everything that is the same for all images of one command: the models and the settings."""

    def __init__(self, arguments, device=None):
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.arguments, dtype = arguments, torch.float32 if device == "cpu" else torch.bfloat16
        self.ensemble = None
        if arguments.preset:
            folder = model_folder(arguments.model) / VERIFIERS
            self.ensemble = ensemble_named(arguments.verifiers or ("natural_image",), folder, arguments.prompt, device)
        self.restorer = Restorer(arguments.model, device, dtype, arguments.adapter, arguments.prompt)
        self.tile = None
        if arguments.tile:
            self.tile = TiledRun(arguments.tile // LATENT, TILES_AT_ONCE)
            self.restorer.vae.tile = VAE_TILE

    def __call__(self, image, path, place, update):
        """Restores `image` (LoadedImage) of the file `path` and writes it to `place`; calls `update` with shares of the work.

        Returns the report.
        """
        image, cleaned = _scaled(image, self.arguments.scale), None
        if self.arguments.cleaned:
            cleaned = _resized(read_image(self._cleaned_of(path)).pixels, image.pixels.shape[-2:])[None]
        started = time.perf_counter()
        found, searched = self._restored(image.pixels[None], cleaned, update)
        if self.arguments.give_back:
            degraded = image.pixels[None]
            found = give_back_detail(found, degraded, self.restorer.through_vae(degraded), self.arguments.give_back)
        seconds = time.perf_counter() - started
        data, remarks = image_bytes(LoadedImage(found[0], image.alpha, image.exif, image.dpi, image.remarks), place.suffix)
        deliver_data(place, data)
        height, width = found.shape[-2:]
        return {
            **searched,
            "input": str(path),
            "output": str(place),
            "width": width,
            "height": height,
            "steps": self.arguments.steps,
            "seed": self.arguments.seed,
            "seconds": round(seconds, 3),
            "adapter": self.arguments.adapter,
            "preset": self.arguments.preset,
            "prompt": self.arguments.prompt,
            "tile": self.tile and self.tile.tile * LATENT,
            "fidelity": self.arguments.fidelity,
            "give_back": self.arguments.give_back,
            "not_kept": remarks,
        }

    def _cleaned_of(self, path):
        given = self.arguments.cleaned
        return given / path.relative_to(self.arguments.input) if given.is_dir() else given

    def _restored(self, images, cleaned, update):
        arguments, seeds = self.arguments, [self.arguments.seed]
        shared = {"fidelity": arguments.fidelity}
        if arguments.few_steps is not None:
            count = arguments.few_steps
            found = self.restorer.restore_few_steps(images, seeds, count, lambda *_: update(1 / count), **shared)
            return found, {"nfe": count, "nfe_planned": count}
        settings = {"steps": arguments.steps}
        shared |= {"cleaned": cleaned}
        if arguments.preset is None:
            shared |= {"tile": self.tile, "callback": lambda *_: update(1 / arguments.steps)}
            found = self.restorer.restore(images, seeds, **settings, **shared)
            return found, {"nfe": arguments.steps, "nfe_planned": arguments.steps}
        algorithm = PRESETS[arguments.preset]
        total = estimate_cost(algorithm, flux_sigmas(**settings))["nfe"]
        found, searched = self.restorer.search(
            images,
            seeds,
            algorithm,
            self.ensemble,
            **settings,
            tile=self.tile,
            callback=lambda count: update(count / total),
            **shared,
        )
        return found, searched | {name: value[0] if value else None for name, value in searched.items() if name in PER_IMAGE}


def _size_of_result(image, scale):
    """(height, width)"""
    return [extent if scale == 1 else max(TOKEN, round(extent * scale)) for extent in image.pixels.shape[-2:]]


def _scaled(image, scale):
    """`image` (LoadedImage) at `scale` times its size, at least a token a side."""
    if scale == 1:
        return image
    size = _size_of_result(image, scale)

    alpha = None if image.alpha is None else _resized(image.alpha, size)
    return LoadedImage(_resized(image.pixels, size), alpha, image.exif, image.dpi, image.remarks)


def _resized(planes, size):
    """`planes` (C, H, W) at `size` (height, width)."""
    if list(planes.shape[-2:]) == list(size):
        return planes
    return F.interpolate(planes[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
