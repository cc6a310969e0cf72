"""The FluxIR adapter on diffusers' FluxTransformer2DModel, through forward hooks alone."""

from functools import partial
from typing import NamedTuple

import torch

from ...fluxir_core.adapter.checkpoint import check_base
from ...fluxir_core.adapter.model import Condition
from .transformer import call_transformer, exact_time, flux_dimensions


class HostCondition(NamedTuple):
    """An image's prompt and positions for the base, and the adapter's Condition."""

    text: torch.Tensor
    pooled: torch.Tensor
    image_ids: torch.Tensor
    adapter: Condition


class FluxIRHost:
    """Adds `adapter`'s residuals, times `strength`, to the blocks of `transformer`; differentiable, undone by `remove`.

    Strength 0 does not run the adapter: the output is `bare_velocity`'s, bit for bit, and in float32 diffusers' own too
    (in lower precision the host's times are the more exact ones, see `exact_time`). With gradient checkpointing, run
    the backward pass before the next call: it runs the blocks again, with the residuals of the latest call.
    Raises WeightFileError when the adapter was made for a base of other sizes.
    """

    def __init__(self, transformer, adapter, strength=1.0):
        check_base(adapter.config, flux_dimensions(transformer))
        self.transformer, self.adapter, self.strength = transformer, adapter, strength
        self._control = None
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        self._last = len(blocks) - 1
        self._handles = list(exact_time(transformer))
        for index, block in enumerate(blocks):
            if adapter.config.inject == "after":
                self._handles.append(block.register_forward_hook(partial(self._after, index)))
            else:
                self._handles.append(block.register_forward_pre_hook(partial(self._before, index), with_kwargs=True))

    def remove(self):
        """Takes every hook off the transformer again."""
        for handle in self._handles:
            handle.remove()

    def prepare(self, lq_tokens, text, pooled, image_ids, columns=None):
        """Computes what does not depend on the time, once per image.

        Args:
            lq_tokens: the degraded latent's, (B, N, 64).
            text: (B, L, context).
            pooled: (B, vec).
            image_ids: positions of the image's tokens, (N, 3).
            columns: of the image's tokens, which other hosts need.

        Returns:
            The condition for `velocity`.
        """
        return HostCondition(text, pooled, image_ids, self.adapter.prepare(lq_tokens, text, pooled, image_ids))

    def velocity(self, tokens, t, condition, guidance):
        """Computes the velocity under the condition.

        Args:
            tokens: x_t, (B, N, 64).
            t: (B,) in [0, 1].
            condition: what `prepare` gave.
            guidance: (B,).

        Returns:
            (B, N, 64).
        """
        embedded = guidance if self.adapter.config.dims.guidance_embed else None
        self._control = self.adapter(tokens, t, embedded, condition.adapter) if self.strength else None
        try:
            return self._call(tokens, t, condition, guidance)
        finally:
            # Gradient checkpointing runs the blocks, and so their hooks, again in the backward pass.
            if not (torch.is_grad_enabled() and self.transformer.gradient_checkpointing):
                self._control = None

    def bare_velocity(self, tokens, t, condition, guidance):
        """Computes the velocity without the adapter.

        Args:
            tokens: x_t, (B, N, 64).
            t: (B,) in [0, 1].
            condition: what `prepare` gave, of which only prompt and positions are used.
            guidance: (B,).

        Returns:
            (B, N, 64).
        """
        self._control = None
        return self._call(tokens, t, condition, guidance)

    def _call(self, tokens, t, condition, guidance):
        return call_transformer(self.transformer, tokens, t, condition.text, condition.pooled, condition.image_ids, guidance)

    def _after(self, index, _block, _args, output):
        if self._control is not None:
            text, image = output
            image = self._add(image, self._control.image(index, image))
            if index < self._last:  # FLUX drops the text behind its last block
                text = self._add(text, self._control.text(index, text))
            return text, image

    def _before(self, index, _block, args, kwargs):
        if self._control is None:
            return None
        names = ("hidden_states", "encoder_hidden_states")
        named = {**dict(zip(names, args)), **kwargs}  # gradient checkpointing passes them by position
        image, text = (named[name] for name in names)
        image = self._add(image, self._control.image(index, image))
        text = self._add(text, self._control.text(index, text))
        if args:
            return (image, text, *args[2:]), kwargs
        return args, {**kwargs, **dict(zip(names, (image, text)))}

    def _add(self, tokens, residual):
        # Strength inside the addition: one pass over the tokens instead of two, at every block.
        return torch.add(tokens, residual, alpha=self.strength)
