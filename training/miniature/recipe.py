"""`fluxir train miniature`: makes every file of models/miniature from procedural pictures and scikit-image's photos."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from ...fluxir_core.flux.dimensions import FluxDimensions
from ...fluxir_core.flux.keymap import diffusers_to_bfl
from ..diffusers_host.fluxir_host import FluxIRHost
from ..engine.fit import RunConfig, fit
from ..engine.optimizers import OptimizerConfig
from ..engine.processes import make_accelerator
from ..outputs import deliver
from ..recipes.fluxir import FluxIRObjective, FluxIRRecipe
from . import export
from .bank import draw_bank, encode_bank
from .batches import MiniatureBatches
from .checkpoint import Checkpoint
from .text import TOKENS
from .train_autoencoder import train_autoencoder
from .train_base import GUIDANCE, train_base

OPTIMIZER = OptimizerConfig(learning_rate=2e-3, beta2=0.99, warmup=100, decay=0.4)
"""The adapter's; the paper's learning rate of 1e-5 belongs to a base 2000 times as large."""

RECIPE = FluxIRRecipe(pixel_stride=4)
BATCH = 64


@dataclass(frozen=True)
class MiniatureSize:
    """How much of everything."""

    scenes: int = 2000
    crops: int = 2400
    versions: int = 2
    autoencoder_steps: int = 4000
    base_steps: int = 2400
    adapter_steps: int = 5000
    adapter_rank: int = 64
    size: int = 256
    seed: int = 0


QUICK = MiniatureSize(scenes=8, crops=8, versions=1, autoencoder_steps=3, base_steps=4, adapter_steps=30, adapter_rank=4, size=128)
"""Every stage in about a minute, for the tests: the files load, the pictures are no good."""


def train_miniature(plan, work, out, device="cpu"):
    """Runs the stages of `plan`, resuming from what `work` holds, and writes the model files to `out`.

    `work` keeps the bank, the latents and the checkpoints; a finished stage is not run again.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _check_plan(plan, work / "plan.json")
    images, words = draw_bank(plan, work)
    autoencoder = train_autoencoder(images, plan.autoencoder_steps, Checkpoint(work / "autoencoder.pt"), device, seed=plan.seed)
    bank = encode_bank(plan, work, autoencoder, images, words)
    transformer = train_base(bank, plan.base_steps, Checkpoint(work / "base.pt"), device, seed=plan.seed)
    adapter = train_adapter(bank, autoencoder, transformer, RECIPE, plan, work / "fluxir")
    training = {"plan": asdict(plan), "recipe": asdict(RECIPE), "optimizer": asdict(OPTIMIZER)}
    deliver(out, lambda folder: export.write(folder, autoencoder, transformer, adapter, training))


def train_adapter(bank, autoencoder, transformer, recipe, plan, folder):
    """Stage 3: the FluxIR adapter on the frozen miniature, by the same recipe as at full size. Returns the averaged adapter.

    Three steps of four see 128-pixel crops, the fourth whole pictures of a quarter of the batch; the prompt is empty.
    """
    base = diffusers_to_bfl(transformer.state_dict())
    torch.manual_seed(plan.seed)
    dims = FluxDimensions.from_state_dict(base)
    adapter = FluxIRAdapter(AdapterConfig(dims, rank=plan.adapter_rank, text_tokens=TOKENS, guidance=GUIDANCE))
    adapter.init_from_base(base)
    device = next(transformer.parameters()).device
    host = FluxIRHost(transformer.requires_grad_(False), adapter.to(device))
    objective = FluxIRObjective(host, autoencoder.requires_grad_(False).decode, recipe)
    run = RunConfig(steps=plan.adapter_steps, batch=BATCH, micro_batch=BATCH, seed=plan.seed, checkpoint_every=200)
    batches = MiniatureBatches(plan.size, BATCH, False, bank, plan.seed, device)
    adapter.load_state_dict(fit(objective, batches, OPTIMIZER, run, folder, make_accelerator()))
    host.remove()
    return adapter.eval()


def load_trained(work, plan, device="cpu"):
    """The finished stages 1 and 2 of `work`, with the latents: (bank, autoencoder, transformer)."""
    images, words = draw_bank(plan, work)
    autoencoder = train_autoencoder(images, plan.autoencoder_steps, Checkpoint(work / "autoencoder.pt"), device)
    bank = encode_bank(plan, work, autoencoder, images, words)
    return bank, autoencoder, train_base(bank, plan.base_steps, Checkpoint(work / "base.pt"), device)


def _check_plan(plan, path):
    written = json.dumps(asdict(plan), indent=2)
    if path.exists() and path.read_text(encoding="utf-8") != written:
        raise ValueError(f"{path.parent} holds another plan's work; choose another --work folder.")
    path.write_text(written, encoding="utf-8")
