"""The paper's other two ways of fusing the degraded image (arXiv 2603.22027, ablation), with UMMFHost's interface."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ...fluxir_core.lora.lora import LoRA, layer_key
from ...fluxir_core.ummf.mode import KONTEXT
from ..diffusers_host.fluxir_host import HostCondition
from ..diffusers_host.restorer import Restorer
from ..diffusers_host.transformer import call_transformer, exact_time, flux_dimensions
from ..diffusers_host.ummf_host import UMMFHost
from ..engine.fit import fit
from ..engine.processes import make_accelerator
from ..miniature import FOLDER
from ..miniature.batches import MiniatureBatches
from ..miniature.evaluate import evaluate
from ..miniature.recipe import OPTIMIZER
from ..recipes.ummf import UMMFObjective


class _Rival:
    """What the two share: hooks to take off, and a condition that is the image's tokens as they are."""

    _handles: list
    adapter: Any

    def remove(self):
        """Takes every hook off the transformer again."""
        for handle in self._handles:
            handle.remove()

    def prepare(self, lq_tokens, text, pooled, image_ids, columns=None, shown=None):
        """Computes what does not depend on the time, once per image, as UMMFHost's.

        Args:
            lq_tokens: of the image, which has the output's size, (B, N, 64).
            text: (B, L, context).
            pooled: (B, vec).
            image_ids: positions of the output's tokens, (N, 3).
            columns: makes no difference.
            shown: bool (B,), False for rows that are given an image of zeros; None shows all.

        Returns:
            The condition for `velocity`.
        """
        if shown is not None:
            lq_tokens = lq_tokens * shown[:, None, None]
        return HostCondition(text, pooled, image_ids, lq_tokens)


class AdditionHost(_Rival):
    """Direct addition: the image's tokens pass a Linear of their own, zero at first, and are added to the noise's behind
    the image embedder; a LoRA changes all tokens."""

    def __init__(self, transformer, rank):
        dims = flux_dimensions(transformer)
        embedder = nn.Linear(dims.in_channels, dims.hidden_size)
        nn.init.zeros_(embedder.weight)
        nn.init.zeros_(embedder.bias)
        self.transformer, self.strength, self._added = transformer, 1.0, None
        self.adapter = nn.ModuleDict({"lora": LoRA.new(dims, rank), "embedder": embedder})
        self._handles = [*exact_time(transformer), transformer.x_embedder.register_forward_hook(self._add)]
        for name in self.adapter["lora"].shapes:
            self._handles.append(transformer.get_submodule(name).register_forward_hook(partial(self._change, name)))

    def velocity(self, tokens, t, condition, guidance):
        """Computes the velocity under the condition, as UMMFHost's.

        Args:
            tokens: x_t, (B, N, 64).
            t: (B,) in [0, 1].
            condition: what `prepare` gave.
            guidance: (B,).

        Returns:
            (B, N, 64).
        """
        self._added = condition.adapter if self.strength else None
        return _call(self.transformer, tokens, t, condition, guidance)

    def _add(self, _module, _args, output):
        return None if self._added is None else output + self.strength * self.adapter["embedder"](self._added)

    def _change(self, name, _module, args, output):
        return None if self._added is None else output + self.adapter["lora"].layers[layer_key(name)](args[0])


class ControlNetHost(_Rival):
    """diffusers' own FluxControlNetModel: a trained copy of the first `double` and `single` blocks, whose outputs are added
    to the frozen transformer's through Linears that are zero at first."""

    def __init__(self, transformer, double, single):
        from diffusers import FluxControlNetModel

        self.transformer, self.strength = transformer, 1.0
        config = transformer.config
        made: Any = FluxControlNetModel.from_transformer(
            transformer, double, single, config.attention_head_dim, config.num_attention_heads
        )
        self.adapter = made.requires_grad_(True)
        self._handles = [*exact_time(transformer), *exact_time(self.adapter)]

    def velocity(self, tokens, t, condition, guidance):
        """Computes the velocity under the condition, as UMMFHost's.

        Args:
            tokens: x_t, (B, N, 64).
            t: (B,) in [0, 1].
            condition: what `prepare` gave.
            guidance: (B,).

        Returns:
            (B, N, 64).
        """
        if not self.strength:
            return _call(self.transformer, tokens, t, condition, guidance)
        double, single = self.adapter(
            hidden_states=tokens,
            controlnet_cond=condition.adapter,
            conditioning_scale=self.strength,
            encoder_hidden_states=condition.text,
            pooled_projections=condition.pooled,
            timestep=t,
            guidance=guidance,
            img_ids=condition.image_ids,
            txt_ids=condition.image_ids.new_zeros(condition.text.shape[1], 3),
            return_dict=False,
        )
        return _call(
            self.transformer,
            tokens,
            t,
            condition,
            guidance,
            controlnet_block_samples=double,
            controlnet_single_block_samples=single,
        )


def _call(transformer, tokens, t, condition, guidance, **residuals):
    return call_transformer(transformer, tokens, t, condition.text, condition.pooled, condition.image_ids, guidance, **residuals)


OPTIMIZERS = {"ControlNet": OPTIMIZER}
"""Of the variants for which the configuration's is no use: Prodigy found no step size for outputs that are all zero at first."""


def parameters(host):
    """How many parameters of the host's adapter are trained."""
    return sum(parameter.numel() for parameter in host.adapter.parameters() if parameter.requires_grad)


def compare(config, work, steps):
    """Trains every kind of fusion for `steps` from the same start, on the miniature, and evaluates it on held-out photos.

    `config` (UMMFConfig) gives data, rank, optimizer and recipe. Returns rows as `evaluate`'s, with `variant` and `parameters`.
    """

    rank, mode = config.adapter.rank, config.adapter.mode

    def ummf(mode):
        return lambda transformer: UMMFHost(transformer, LoRA.new(flux_dimensions(transformer), rank), mode)

    variants = {
        "UMMF, condition attends to itself (shipped)": ummf(replace(mode, attention="alone")),
        "UMMF, joint attention": ummf(replace(mode, attention="joint")),
        "UMMF, Kontext's positions, LoRA on all tokens": ummf(KONTEXT),
        "direct addition": lambda transformer: AdditionHost(transformer, rank),
        "ControlNet": lambda transformer: ControlNetHost(transformer, 1, 1),
    }
    run, data, rows = replace(config.run, steps=steps), config.data, []
    size = max(max(size) for size in data.sizes)
    batches = MiniatureBatches.for_model(FOLDER, size, run.batch, data.prompts, data.photos, run.seed)
    for i, (name, make) in enumerate(variants.items()):
        restorer = Restorer("miniature")
        restorer.host.remove()
        torch.manual_seed(0)
        host = restorer.host = make(restorer.host.transformer)
        objective, folder = UMMFObjective(host, config.recipe, batches.empty), work / f"fusion-{steps}-{i}"
        host.adapter.load_state_dict(
            fit(objective, batches, OPTIMIZERS.get(name, config.optimizer), run, folder, make_accelerator())
        )
        host.adapter.eval()
        found = evaluate(restorer, seeds=(0,))
        rows += [{"variant": name, "parameters": parameters(host), **row} for row in found]
    return rows
