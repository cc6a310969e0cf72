"""`fluxir train miniature`: makes every file of models/miniature from procedural pictures and scikit-image's photos."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ...fluxir_core.adapter import AdapterConfig, FluxDimensions, FluxIRAdapter, diffusers_to_bfl
from ..fluxir import FluxIRRecipe, train_fluxir
from ..host import DiffusersHost
from . import export
from .bank import drawn_bank, encoded_bank
from .checkpoint import Checkpoint
from .latents import LatentCrops
from .text import TOKENS
from .train_autoencoder import train_autoencoder
from .train_base import GUIDANCE, train_base


LEARNING_RATE = 2e-3
"""Of the adapter; the paper's 1e-5 belongs to a base 2000 times as large."""


@dataclass(frozen=True)
class Plan:
    """How much of everything; the defaults made the committed weights."""

    scenes: int = 2000
    crops: int = 2400
    versions: int = 2
    autoencoder_steps: int = 10500
    base_steps: int = 2800
    adapter_steps: int = 5000
    adapter_rank: int = 64
    size: int = 256
    seed: int = 0


QUICK = Plan(scenes=8, crops=8, versions=1, autoencoder_steps=3, base_steps=4, adapter_steps=30, adapter_rank=4, size=128)
"""Every stage in about a minute, for the tests: the files load, the pictures are no good."""


def train_miniature(plan, work, out, device="cpu"):
    """Runs the stages of `plan`, resuming from what `work` holds, and writes the model files to `out`.

    `work` keeps the bank, the latents and the checkpoints; a finished stage is not run again.
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    _check_plan(plan, work / "plan.json")
    images, words = drawn_bank(plan, work)
    autoencoder = train_autoencoder(images, plan.autoencoder_steps, Checkpoint(work / "autoencoder.pt"), device, seed=plan.seed)
    bank = encoded_bank(plan, work, autoencoder, images, words)
    transformer = train_base(bank, plan.base_steps, Checkpoint(work / "base.pt"), device, seed=plan.seed)
    recipe = FluxIRRecipe(steps=plan.adapter_steps, batch=64, learning_rate=LEARNING_RATE)
    adapter = train_adapter(bank, autoencoder, transformer, recipe, plan, Checkpoint(work / "fluxir.pt"))
    export.write(Path(out), autoencoder, transformer, adapter, {"plan": asdict(plan), "recipe": asdict(recipe)})


def train_adapter(bank, autoencoder, transformer, recipe, plan, checkpoint):
    """Stage 3: the FluxIR adapter on the frozen miniature, by the same recipe as at full size. Returns the averaged adapter.

    Three steps of four see 128-pixel crops, the fourth whole pictures of a quarter of the batch.
    """
    base = diffusers_to_bfl(transformer.state_dict())
    dims = FluxDimensions.from_state_dict(base)
    torch.manual_seed(plan.seed)
    adapter = FluxIRAdapter(AdapterConfig(dims, rank=plan.adapter_rank, text_tokens=TOKENS, guidance=GUIDANCE))
    adapter.init_from_base(base)
    device = next(transformer.parameters()).device
    host = DiffusersHost(transformer.requires_grad_(False), adapter.to(device))
    crops = LatentCrops(bank, device)

    def batches(step):
        whole = step % 4 == 3
        batch = crops.sample(max(1, recipe.batch // 4) if whole else recipe.batch, plan.size // 8 if whole else 16)
        batch.text, batch.pooled = torch.zeros_like(batch.text), torch.zeros_like(batch.pooled)  # the empty prompt
        return batch

    return train_fluxir(host, batches, autoencoder.requires_grad_(False).decode, recipe, checkpoint, seed=plan.seed)


def load_trained(work, plan, device="cpu"):
    """The finished stages 1 and 2 of `work`, with the latents: (bank, autoencoder, transformer)."""
    images, words = drawn_bank(plan, work)
    autoencoder = train_autoencoder(images, plan.autoencoder_steps, Checkpoint(work / "autoencoder.pt"), device)
    bank = encoded_bank(plan, work, autoencoder, images, words)
    return bank, autoencoder, train_base(bank, plan.base_steps, Checkpoint(work / "base.pt"), device)


def _check_plan(plan, path):
    written = json.dumps(asdict(plan), indent=2)
    if path.exists() and path.read_text() != written:
        raise SystemExit(f"fluxir train miniature: {path.parent} holds another plan's work; choose another --work folder.")
    path.write_text(written)
