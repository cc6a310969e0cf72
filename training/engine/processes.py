"""One process or many: accelerate's DDP and FSDP2, and whole tensors from and to their shards."""

from datetime import timedelta
from typing import Any

import torch

BLOCKS = ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
"""The modules that FSDP shards one by one."""
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: before the first step each encodes its share of the data."""


def make_accelerator(sharding="ddp", precision="bf16", trackers=(), folder=None):
    """Makes the Accelerator of this process, as `torchrun` or `accelerate launch` started it, or alone.

    Args:
        sharding: "fsdp" shards the base and the adapter over all processes (FSDP2); "ddp" keeps a copy in each.
        precision: "bf16" computes under autocast, "no" in float32.
        trackers: accelerate's names of loggers; by default none.
        folder: that the loggers write to.

    Returns:
        The Accelerator.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import (
        DistributedDataParallelKwargs,
        DistributedType,
        FullyShardedDataParallelPlugin,
        InitProcessGroupKwargs,
    )

    AcceleratorState._reset_state()  # it would keep an earlier run's precision in the same process
    plugin = None
    if sharding == "fsdp":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=BLOCKS,
            cpu_ram_efficient_loading=False,
            # Autocast computes in bfloat16; FSDP's own casts would round the timesteps too.
            mixed_precision_policy=MixedPrecisionPolicy(),
        )
    accelerator = Accelerator(
        mixed_precision=precision,
        fsdp_plugin=plugin,
        log_with=list(trackers) or None,
        project_dir=folder,
        cpu=not torch.cuda.is_available(),
        # A UMMF LoRA has layers behind the last attention, where FLUX drops the condition: they get no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True), InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate turns FSDP on for accelerators alone; torch shards over gloo as well.
        accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    return accelerator


def any_process(accelerator, flag):
    """True in every process when `flag` is true in one."""
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item())


def whole(tree) -> Any:
    """`tree` (dicts and lists of tensors and values) with every shard gathered, on the CPU. All processes must call it."""
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(whole(value) for value in tree)
    if not isinstance(tree, torch.Tensor):
        return tree
    return getattr(tree, "full_tensor", tree.detach)().cpu().clone()


def sharded_like(value, like):
    """The shard of the whole tensor `value` that belongs beside the parameter `like`."""
    if not _sharded(like) or value.shape != like.shape:
        return value.to(like.device) if value.ndim else value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def local(tensor):
    """This process' part of `tensor`, sharing its memory."""
    return tensor.to_local() if _sharded(tensor) else tensor


def load_optimizer(optimizer, state, parameters):
    """Loads the whole `state` dict into `optimizer` over `parameters`, sharding what is sharded."""
    placed = {
        index: {name: sharded_like(value, parameters[index]) if torch.is_tensor(value) else value for name, value in own.items()}
        for index, own in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": placed})


def is_sharded(module):
    """Whether a parameter of `module` is a shard at this moment."""
    return any(map(_sharded, module.parameters()))


def _sharded(tensor):
    return hasattr(tensor, "full_tensor")
