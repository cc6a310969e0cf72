"""What must hold of every call of a node: its errors are sentences in its name, and what it was given is as it was."""

import torch

from .harness import assert_sentence


def assert_named(error, drawer):
    """A sentence that begins with the name of one of the pack's nodes, whose additions in parentheses may be left out."""
    assert_sentence(error)
    names = [node.define_schema().display_name for node in drawer.kinds.values()]
    assert str(error).startswith(tuple(f"{own}: " for name in names for own in (name, name.partition(" (")[0]))), str(error)


def weights(model):
    """{name: tensor} of a MODEL's own weights, with nothing loaded or patched."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def copied(value):
    """`value` with copies of its tensors; what else a node may be given is described as far as nodes could change it."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: copied(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(own) for own in value]
    if hasattr(value, "original_conds"):
        return copied(value.original_conds), copied(value.model_patcher)
    if hasattr(value, "model_options"):
        return str(sorted(value.patches)), described(value.model_options), described(value.wrappers), described(value.callbacks)
    return value


def described(value):
    if isinstance(value, dict):
        return {name: described(own) for name, own in value.items()}
    return [described(own) for own in value] if isinstance(value, (list, tuple)) else id(value)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num()) and one.shape == other.shape
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other or one == other or type(one).__module__.startswith("comfy")


def tensors(value):
    """All tensors of a value."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [found for own in value for found in tensors(own)] if isinstance(value, (list, tuple)) else []
