"""Where a recipe's batches come from: the miniature's bank of latents, or a folder of photos that are degraded on the way."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from ..fluxir_core.degrade import degrade_random
from ..fluxir_core.image import load_picture
from ..fluxir_core.image.files import SUFFIXES
from ..fluxir_core.tokens import image_ids, pack_latents
from .miniature.latents import Batch, LatentCrops
from .model_folder import MINIATURE


class MiniatureCrops:
    """Crops of the miniature's training bank, drawn and encoded once in `work`, with their words as prompts.

    Three steps of four see `batch` crops of half of `size` pixels a side, the fourth whole pictures, a quarter as many.
    """

    description = "procedural dead-leaves scenes and crops of photos bundled with scikit-image"

    def __init__(self, size, batch, work, device):
        from .miniature.autoencoder import narrowed
        from .miniature.bank import drawn_bank, encoded_bank
        from .miniature.recipe import Plan

        work.mkdir(parents=True, exist_ok=True)
        plan = Plan(size=size)
        images, words = drawn_bank(plan, work)
        (vae,) = (MINIATURE / "vae").glob("*.safetensors")
        bank = encoded_bank(plan, work, narrowed(load_file(vae)).to(device), images, words)
        self.crops, self.batch, self.side = LatentCrops(bank, device), batch, size // 8

    def __call__(self, step):
        whole = step % 4 == 3
        return self.crops.sample(max(1, self.batch // 4) if whole else self.batch, self.side if whole else self.side // 2)


class FolderCrops:
    """Random crops of `size` pixels a side of the photos in `folder` and below it, degraded at random and encoded by `models`
    at every step, with the empty prompt of its adapter. Raises ValueError when a folder has no photo of that size.
    """

    def __init__(self, folder, size, batch, models, device):
        self.files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not self.files:
            raise ValueError(f"--config: the data folder {folder} holds no photo ({', '.join(sorted(SUFFIXES))}); give another.")
        self.size, self.batch, self.models, self.device = size, batch, models, device
        self.dtype = next(models.vae.vae.parameters()).dtype
        self.description = f"{len(self.files)} photos of the folder {Path(folder).name}, degraded at random"

    @torch.no_grad()
    def __call__(self, step):
        clean = torch.stack([self._crop() for _ in range(self.batch)])
        generator = torch.Generator().manual_seed(torch.randint(2**62, ()).item())
        degraded = torch.stack([degrade_random(picture, generator) for picture in clean])
        clean, degraded = (self.models.vae.encode(p.to(self.device, self.dtype)).float() for p in (clean, degraded))
        grid, adapter = tuple(clean.shape[-2:]), self.models.adapter
        text, pooled = (value.float().expand(self.batch, *value.shape) for value in (adapter.null_text, adapter.null_pooled))
        return Batch(pack_latents(clean), pack_latents(degraded), text, pooled, image_ids(*grid).to(self.device), grid)

    def _crop(self):
        for index in torch.randperm(len(self.files)).tolist():
            picture = load_picture(self.files[index])
            height, width = picture.shape[-2:]
            if min(height, width) >= self.size:
                top, left = (torch.randint(extent - self.size + 1, ()).item() for extent in (height, width))
                return picture[:, top : top + self.size, left : left + self.size]
        raise ValueError(f"--config: no photo is {self.size} pixels a side or more; lower `size` or give larger photos.")
