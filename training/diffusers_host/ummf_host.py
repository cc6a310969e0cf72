"""UMMF on diffusers' FluxTransformer2DModel: condition tokens beside its blocks, through attention processors."""

from functools import partial
from typing import Any, NamedTuple

import torch

from ...fluxir_core.flux.keymap import diffusers_parts
from ...fluxir_core.lora.lora import layer_key
from ...fluxir_core.ummf.condition_stream import ConditionBranch, condition_positions
from ...fluxir_core.ummf.kv_cache import CachedCondition, KVCache
from ..engine.processes import is_sharded
from .transformer import call_transformer, exact_time, flux_dimensions


class ShownImage(NamedTuple):
    """A prompt, the output's positions, and the condition's tokens (B, M, 64) at its own (M, 3), which the rows that are not `shown`,
    bool (B,), do without; None shows all."""

    text: torch.Tensor
    pooled: torch.Tensor
    image_ids: torch.Tensor
    tokens: torch.Tensor
    ids: torch.Tensor
    shown: torch.Tensor | None = None


class UMMFHost:
    """Lets `transformer` read condition images in `mode` with `lora`; differentiable, undone by `remove`.

    Strength 0 leaves the condition and its LoRA out; other strengths are factors on the attention that it gets. Raises
    ValueError when the LoRA was made for other sizes.
    """

    def __init__(self, transformer, lora, mode, strength=1.0):
        dims = flux_dimensions(transformer)
        if lora.dims != dims:
            raise ValueError(f"UMMF: the LoRA is for {lora.dims}, but the transformer is {dims}; choose the LoRA made for it.")
        self.transformer, self.adapter, self.strength = transformer, lora, strength
        self.branch = ConditionBranch(self._module, dims, mode, lora if mode.tokens == "condition" else None)
        self.cache = KVCache()
        self._beside = None
        self._handles = list(exact_time(transformer))
        if mode.tokens == "all":
            for name in lora.shapes:
                module = transformer.get_submodule(name)
                self._handles.append(module.register_forward_hook(partial(self._change, name)))
        self._processors = transformer.attn_processors
        for index, block in enumerate([*transformer.transformer_blocks, *transformer.single_transformer_blocks]):
            block.attn.set_processor(_JointProcessor(self, index))

    def remove(self):
        """Takes every hook and processor off the transformer again."""
        for handle in self._handles:
            handle.remove()
        self.transformer.set_attn_processor(self._processors)

    def prepare(self, lq_tokens, text, pooled, image_ids, lq_grid=None, columns=None, shown=None):
        """Computes what does not depend on the time, once per image.

        Args:
            lq_tokens: of the condition, (B, M, 64).
            text: (B, L, context).
            pooled: (B, vec).
            image_ids: positions of the output's tokens, (N, 3).
            lq_grid: (rows, columns) of the condition's tokens; None for the output's.
            columns: of the output's tokens; None to read them off `image_ids`.
            shown: bool (B,), False for rows that do without the condition; None shows all.

        Returns:
            The condition for `velocity`.
        """
        columns = columns or int((image_ids[:, 1] == image_ids[0, 1]).sum())
        grid = image_ids.unflatten(0, (-1, columns))
        height, width = lq_grid or grid.shape[:2]
        ids = condition_positions(grid, height, width, self.branch.mode)
        return ShownImage(text, pooled, image_ids, lq_tokens, ids, shown)

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
        self._beside = self._show(condition, t, guidance) if self.strength else None
        try:
            return self.bare_velocity(tokens, t, condition, guidance, keep=True)
        finally:
            # Gradient checkpointing runs the blocks, and so their processors, again in the backward pass.
            if not (torch.is_grad_enabled() and self.transformer.gradient_checkpointing):
                self._beside = None

    def bare_velocity(self, tokens, t, condition, guidance, keep=False):
        """Computes the velocity without the condition and its LoRA.

        Args:
            tokens: x_t, (B, N, 64).
            t: (B,) in [0, 1].
            condition: what `prepare` gave, of which only prompt and positions are used.
            guidance: (B,).
            keep: leaves the condition of a call of `velocity` in place, which uses this.

        Returns:
            (B, N, 64).
        """
        if not keep:
            self._beside = None
        return call_transformer(self.transformer, tokens, t, condition.text, condition.pooled, condition.image_ids, guidance)

    def _show(self, shown, t, guidance):
        # The blocks of a sharded transformer have their weights in their own calls alone: nothing can be computed ahead.
        if self.branch.mode.constant and shown.shown is None and not (torch.is_grad_enabled() or is_sharded(self.transformer)):
            recalled = self.cache.recall(self.branch, shown.tokens, [shown.ids], guidance, shown.pooled, _attention)
            assert recalled is not None  # nothing is asked whether it fits
            return CachedCondition(*recalled, self.strength)
        self.cache.clear()  # a training step changes the LoRA
        vector = self.branch.vector(t, guidance, shown.pooled)
        return self.branch.start(shown.tokens, [shown.ids], vector, self.strength, shown.shown)

    def _module(self, name):
        """The transformer's module of BFL's name: one, or the pieces of a fused Linear side by side."""
        parts = [self.transformer.get_submodule(part) for part in diffusers_parts(name)]
        return parts[0] if len(parts) == 1 else lambda x: torch.cat([part(x) for part in parts], -1)

    def _change(self, name, _module, args, output):
        return output + self.adapter.layers[layer_key(name)](args[0]) if self.strength else None


class _JointProcessor:
    """The attention of one FLUX block, with the condition's tokens beside the transformer's."""

    def __init__(self, host, index):
        self.host, self.index = host, index

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
        from diffusers.models.embeddings import apply_rotary_emb

        streams = [(hidden_states, attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)]
        if encoder_hidden_states is not None:
            added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, attn.norm_added_q, attn.norm_added_k)
            streams.insert(0, (encoder_hidden_states, *added))
        heads = []
        for x, to_q, to_k, to_v, norm_q, norm_k in streams:
            query, key, value = (to(x).unflatten(-1, (-1, attn.head_dim)).transpose(1, 2) for to in (to_q, to_k, to_v))
            heads.append((norm_q(query), norm_k(key), value))
        query, key, value = (torch.cat(parts, 2) for parts in zip(*heads))
        rotate: Any = apply_rotary_emb  # it takes a tensor where it is typed to take a tuple, and gives one
        query, key = (rotate(x, image_rotary_emb).to(value) for x in (query, key))
        beside = self.host._beside
        if beside is None:
            mixed = _attention(query, key, value, None)
        else:
            mixed = beside.attend(self.index, query, key, value, _attention)
        if encoder_hidden_states is None:
            return mixed
        text, image = mixed.tensor_split([encoder_hidden_states.shape[1]], 1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


def _attention(query, key, value, bias):
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, bias)
    return mixed.transpose(1, 2).flatten(2)
