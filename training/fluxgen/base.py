"""A bare FLUX that draws images: no adapter, no image to start from."""

import torch

from ...fluxir_core.adapter.checkpoint import load_adapter
from ...fluxir_core.flow.rectified_flow import euler, flux_sigmas
from ...fluxir_core.flux.tokens import image_ids, pack_latents, unpack_latents
from ..data.prompts import load_prompt_encoder
from ..diffusers_host.model_folder import model_folder, only_file, open_transformer, open_vae
from ..diffusers_host.transformer import call_transformer, exact_time

PATCH, CHANNELS, TOKENS = 16, 16, 512
"""Pixels a side of one token, channels of a latent, and FLUX.1-dev's length of a prompt."""


def flux_shift(height, width):
    """FLUX.1's own mu for an image of that size in pixels: linear in its tokens, 0.5 at 256 and 1.15 at 4096."""
    return 0.5 + 0.65 * (height * width / PATCH**2 - 256) / (4096 - 256)


def load_embedder(name, prompts, device, dtype):
    """Loads what turns prompts into embeddings, for prompts that are known before.

    Text encoders that are not needed any more, because there is one prompt, are let go.

    Args:
        name: of the model folder, as for `load_models`.
        prompts: all that will be asked for, at least one.
        device, dtype: as for `load_prompt_encoder`.

    Returns:
        A function from some of `prompts` to (text (B, L, context), pooled (B, vec)), on the CPU.

    Raises:
        ValueError: as `load_prompt_encoder`, and where the folder cannot read the first prompt.
    """
    folder, tokens = model_folder(name), TOKENS
    if (folder / "fluxir_adapters").is_dir():
        tokens = load_adapter(only_file(folder / "fluxir_adapters")).config.text_tokens
    encode = load_prompt_encoder(name, tokens, device, dtype)
    only = encode(prompts[0])  # a folder that reads none says so now, before anything is drawn
    if len(prompts) == 1:
        return lambda some: [part.expand(len(some), *part.shape) for part in only]

    def embed(some):
        known = {prompt: encode(prompt) for prompt in dict.fromkeys(some)}
        return [torch.stack(parts) for parts in zip(*(known[prompt] for prompt in some))]

    return embed


class Base:
    """The FLUX of the model folder `name` (see `load_models`; no adapter is needed) on `device`: transformer and VAE in
    `dtype`, the sampler in float32. Raises ValueError, one sentence, when something is missing.
    """

    def __init__(self, name, device="cpu", dtype=torch.float32):
        self.folder, self.device, self.dtype = model_folder(name), device, dtype
        self.transformer, self.vae = open_transformer(self.folder, dtype).to(device), open_vae(self.folder, dtype)
        self.vae.vae.to(device)
        exact_time(self.transformer)

    @torch.no_grad()
    def draw(self, text, pooled, seeds, height, width, steps, guidance):
        """Draws images, by Euler steps on FLUX's sigmas, shifted as FLUX.1 shifts them for the size.

        Args:
            text: the prompts' embeddings, (B, L, context).
            pooled: their pooled ones, (B, vec).
            seeds: one for each image; image i starts from the noise that ComfyUI draws for seeds[i].
            height, width: of an image in pixels, multiples of 16.
            steps: of the sampler.
            guidance: FLUX's, a number.

        Returns:
            (B, 3, height, width) in [0, 1], float32, on the CPU.

        Raises:
            ValueError: the model gives NaN or infinity.
        """
        grid = height // 8, width // 8
        noise = [torch.randn((1, CHANNELS, *grid), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        text, pooled = (part.to(self.device, self.dtype) for part in (text, pooled))
        ids, strength = image_ids(*grid).to(self.device), torch.full((len(seeds),), float(guidance), device=self.device)

        def velocity(x, t):
            return call_transformer(self.transformer, x.to(self.dtype), t, text, pooled, ids, strength).float()

        sigmas = flux_sigmas(steps, flux_shift(height, width)).to(self.device)
        tokens = euler(velocity, pack_latents(torch.cat(noise)).to(self.device), sigmas)
        images = self.vae.decode(unpack_latents(tokens, *grid).to(self.dtype)).float()
        if not images.isfinite().all():
            raise ValueError(f"--model: {self.folder} draws NaN in {self.dtype}; download its weights again.")
        return images.clamp(0, 1).cpu()
