"""LoRAs on LucidFlux's branches: LucidNFT (arXiv 2603.05947)."""

from ..lora.peft_files import load_peft, rename

_PARTS = {
    "lq": "condition_lq",
    "pre": "condition_ldr",
    "ldr": "condition_ldr",
    "modulation_lq": "modulation_lq",
    "modulation_pre": "modulation_ldr",
    "modulation_ldr": "modulation_ldr",
}
"""What LucidNFT's code calls the parts of LucidFlux, and the public file's names. What it calls `pre` is the cleaned image's."""


def load_branch_lora(path):
    """{module of LucidFlux: PeftLayer} of a LoRA on its branches, modulations or connector.

    Raises WeightFileError on a file that is no such LoRA.
    """
    return rename(load_peft(path), _module, path, "LucidFlux")


def _module(name):
    name = name.removeprefix("dual_condition_branch.")
    part, _, rest = name.partition(".")
    if part in ("condition_lq", "condition_ldr", "connector"):
        return name
    return f"{_PARTS[part]}.{rest}" if part in _PARTS else None
