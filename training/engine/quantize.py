"""A frozen FLUX transformer in less memory than bfloat16."""

import torch


def quantize(transformer, precision, device="cpu"):
    """Brings `transformer` to `precision` ("float32", "bf16", "fp8", "nf4") and to `device`, in place; returns it.

    fp8 stores the blocks' weights as float8_e4m3fn and computes in bfloat16 (diffusers' layerwise casting); nf4 stores the
    blocks' Linear weights in bitsandbytes' 4-bit NormalFloat. Embedders, norms and the output stay in bfloat16. The device
    holds one block at a time in full: one that the quantized model fits will do. Raises ValueError when bitsandbytes is not
    installed.
    """
    stored = torch.float32 if precision == "float32" else torch.bfloat16
    if transformer.dtype != stored:
        transformer.to(stored)
    shrink = {"fp8": _to_fp8, "nf4": _to_nf4}.get(precision)
    if shrink:
        for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
            shrink(block.to(device))
    if transformer.x_embedder.weight.device != torch.device(device):
        transformer.to(device)
    return transformer


def _to_fp8(block):
    from diffusers.hooks import apply_layerwise_casting

    # Block by block: the model's own method leaves out every "norm", and with them FLUX's modulations, a quarter of it.
    apply_layerwise_casting(block, torch.float8_e4m3fn, torch.bfloat16, skip_modules_pattern=("norm_(added_)?[qk]",))


def _to_nf4(block):
    try:
        from bitsandbytes import nn
    except ImportError:
        raise ValueError("base: precision nf4 needs bitsandbytes; run `pip install -e .[train]` in the pack's folder.") from None
    for module in list(block.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(module, name, _nf4(nn, child))


def _nf4(nn, linear):
    small = nn.Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=linear.weight.dtype, quant_type="nf4"
    )
    small.weight = nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
    small.bias = linear.bias
    return small.to(linear.weight.device)  # moving it is what quantizes it
