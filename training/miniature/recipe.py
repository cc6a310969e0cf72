"""`fluxir train miniature`: makes every file of models/miniature from photos and procedural scenes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.data.shards import write_whole
from ...fluxir_core.flux.dimensions import FluxDimensions
from ...fluxir_core.flux.keymap import diffusers_to_bfl
from ..diffusers_host.fluxir_host import FluxIRHost
from ..engine.fit import RunConfig, fit
from ..engine.optimizers import OptimizerConfig
from ..engine.processes import make_accelerator
from ..outputs import deliver
from ..recipes.fluxir import FluxIRObjective, FluxIRRecipe
from . import export
from .batches import MiniatureBatches
from .checkpoint import Checkpoint
from .photos import fetch_photos
from .stream import ImageStream
from .text import TOKENS
from .train_autoencoder import train_autoencoder
from .train_base import GUIDANCE, train_base

OPTIMIZER = OptimizerConfig(learning_rate=2e-3, beta2=0.99, warmup=100, decay=0.4)
"""The adapter's; the paper's learning rate of 1e-5 belongs to a base 2000 times as large."""

NOISE_TONE = 0.25
RECIPE = FluxIRRecipe(pixel_stride=4, noise_tone=NOISE_TONE)
BATCH = 64


@dataclass(frozen=True)
class MiniatureSize:
    """How much of everything. Without `photos` scikit-image's serve alone."""

    narrow_steps: int = 2000
    autoencoder_steps: int = 10000
    base_steps: int = 10000
    adapter_steps: int = 12000
    adapter_rank: int = 96
    size: int = 256
    pairs: int = 256
    photos: bool = True
    seed: int = 0


QUICK = MiniatureSize(
    narrow_steps=2, autoencoder_steps=3, base_steps=4, adapter_steps=30, adapter_rank=4, size=128, pairs=8, photos=False
)
"""Every stage in about a minute, for the tests: the files load, the images are no good."""


def train_miniature(amounts, work, out, photos, device="cpu"):
    """Makes the miniature's model files, stage by stage, resuming; a finished stage is not run again.

    Args:
        amounts: MiniatureSize.
        work: the folder of the stages' checkpoints.
        out: the folder of the model files.
        photos: the folder that the photographs are fetched to.
        device: where the first two stages compute, and the third on the transformer that they give.

    Raises:
        ValueError: `work` holds another run's work.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _check_amounts(amounts, work / "plan.json")
    images, autoencoder, transformer = trained_base(amounts, work, photos, device)
    adapter = train_adapter(images, autoencoder, transformer, RECIPE, amounts, work / "fluxir")
    training = {"amounts": asdict(amounts), "recipe": asdict(RECIPE), "optimizer": asdict(OPTIMIZER)}
    deliver(out, lambda folder: export.write(folder, autoencoder, transformer, adapter, training, images.description))


def trained_base(amounts, work, photos, device="cpu"):
    """Trains the autoencoder and the transformer (stages 1 and 2), as far as they are not yet.

    Args:
        amounts: MiniatureSize.
        work: Path of the stages' checkpoints.
        photos: the folder that the photographs are fetched to; not used where `amounts.photos` is off.
        device: where they are trained.

    Returns:
        (ImageStream, autoencoder, transformer), both networks frozen.
    """
    if amounts.photos:
        fetch_photos(photos)
    images = ImageStream(photos if amounts.photos else None, amounts.size, amounts.seed)
    steps = amounts.narrow_steps, amounts.autoencoder_steps
    parts = Checkpoint(work / "narrow.pt"), Checkpoint(work / "autoencoder.pt")
    autoencoder = train_autoencoder(images, *steps, *parts, device, seed=amounts.seed).requires_grad_(False)
    batches = MiniatureBatches(images, autoencoder, BATCH, prompts=True, degrade=None, device=device, pairs=amounts.pairs)
    transformer = train_base(
        batches, amounts.base_steps, Checkpoint(work / "base.pt"), device, seed=amounts.seed, noise_tone=NOISE_TONE
    )
    return images, autoencoder, transformer


def train_adapter(images, autoencoder, transformer, recipe, amounts, folder):
    """Trains the FluxIR adapter on the frozen miniature (stage 3), by the same recipe as at full size.

    Three steps of four see crops of half the side, the fourth whole images of a quarter of the batch; the prompt is empty.

    Args:
        images: ImageStream.
        autoencoder: NarrowTAESD.
        transformer: FluxTransformer2DModel; it is frozen.
        recipe: FluxIRRecipe.
        amounts: MiniatureSize.
        folder: of the checkpoints.

    Returns:
        The averaged adapter, in eval mode.
    """
    base = diffusers_to_bfl(transformer.state_dict())
    torch.manual_seed(amounts.seed)
    dims = FluxDimensions.from_state_dict(base)
    adapter = FluxIRAdapter(AdapterConfig(dims, rank=amounts.adapter_rank, text_tokens=TOKENS, guidance=GUIDANCE))
    adapter.init_from_base(base)
    device = next(transformer.parameters()).device
    host = FluxIRHost(transformer.requires_grad_(False), adapter.to(device))
    objective = FluxIRObjective(host, autoencoder.decode, recipe)
    run = RunConfig(steps=amounts.adapter_steps, batch=BATCH, micro_batch=BATCH, seed=amounts.seed, checkpoint_every=100)
    batches = MiniatureBatches(images, autoencoder, BATCH, device=device, pairs=amounts.pairs)
    adapter.load_state_dict(fit(objective, batches, OPTIMIZER, run, folder, make_accelerator()))
    host.remove()
    return adapter.eval()


def _check_amounts(amounts, path):
    written = json.dumps(asdict(amounts), indent=2)
    if path.exists() and path.read_bytes() != written.encode():
        raise ValueError(f"{path.parent} holds another run's work; choose another --work folder.")
    write_whole(path, written)
