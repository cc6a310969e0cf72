"""`fluxir fit`: fits a model that ships with the package."""

import logging

import numpy as np
import torch

from ...fluxir_core.flux.weight_files import write_safetensors
from ...fluxir_core.image.pixels import luma
from ...fluxir_core.verify.niqe import MODEL_FILE, PATCH, STRIDE
from ...fluxir_core.verify.statistics import spectral_slope
from ..miniature.scenes import TRAINING_PHOTOS, load_photo
from ..outputs import check_file, deliver
from ..studies.fit_niqe import fit


def add_arguments(parser):
    parser.add_argument("what", choices=["niqe"], help="the model to fit")
    parser.add_argument("--output", default=str(MODEL_FILE), help="file to write (default: the package's own)")


def run(arguments):
    check_file("--output", arguments.output, (".safetensors",))
    photos = [load_photo(name) for name in TRAINING_PHOTOS]
    model, patches = fit(photos)
    metadata = {
        "format": "fluxir-niqe-1",
        "patch": str(PATCH),
        "stride": str(STRIDE),
        "features": "36",
        "patches": str(patches),
        "photos": ",".join(TRAINING_PHOTOS),
        "source": "photos bundled with scikit-image",
        "license": "Apache-2.0",
    }
    deliver(arguments.output, lambda place: write_safetensors(place, model, metadata))
    slopes = [spectral_slope(luma(torch.from_numpy(np.array(p)).permute(2, 0, 1)[None].float() / 255)).item() for p in photos]
    logging.info("%d patches; median spectral slope %.2f; wrote %s", patches, np.median(slopes), arguments.output)
