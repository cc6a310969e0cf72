"""What diffusers calls the modules of a VAE's encoder, and what ComfyUI (as the first latent diffusion models) calls them."""

import re

_PATTERNS = (
    (r"conv_(in|out)", r"conv_\1"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)\.conv_shortcut", r"down.\1.block.\2.nin_shortcut"),
    (r"down_blocks\.(\d+)\.resnets\.(\d+)\.(conv[12])", r"down.\1.block.\2.\3"),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.conv", r"down.\1.downsample.conv"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", r"mid.attn_1.proj_out"),
)


def encoder_module(name):
    """ComfyUI's name of a module of a VAE, from diffusers' name of it in the VAE or in its encoder alone; None where an encoder
    has no such module."""
    name = name.removeprefix("encoder.")
    middle = re.fullmatch(r"mid_block\.resnets\.(\d+)\.(conv[12])", name)
    if middle:
        return f"encoder.mid.block_{int(middle[1]) + 1}.{middle[2]}"
    for pattern, own in _PATTERNS:
        if re.fullmatch(pattern, name):
            return f"encoder.{re.sub(pattern, own, name)}"
    return None
