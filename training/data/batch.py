"""What a training step sees."""

from dataclasses import dataclass

import torch

from ...fluxir_core.flux.tokens import image_ids, pack_latents


@dataclass
class Batch:
    """Tokens `clean`, `degraded` (B, N, 64), the prompts' `text` (B, L, context) and `pooled` (B, vec), `image_ids` (N, 3);
    `grid` (h, w) of the latents."""

    clean: torch.Tensor
    degraded: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor
    image_ids: torch.Tensor
    grid: tuple[int, int]

    @classmethod
    def of_latents(cls, clean, degraded, text, pooled, device):
        """A batch of latents in network space and their prompts' embeddings, float32.

        Args:
            clean, degraded: latents, (B, 16, h, w).
            text: (B, L, context).
            pooled: (B, vec).
            device: where the batch is.

        Returns:
            A Batch.
        """
        grid = tuple(clean.shape[-2:])
        tensors = (pack_latents(clean), pack_latents(degraded), text, pooled, image_ids(*grid))
        clean, degraded, text, pooled, ids = (tensor.float().to(device) for tensor in tensors)
        return cls(clean, degraded, text, pooled, ids, grid)
