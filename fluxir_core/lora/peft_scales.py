"""The strength of a LoRA that peft's configuration states: in diffusers' header, or in the file beside the weights."""

import math
import re


class PeftScales:
    """The factors, alpha / rank, that peft's configuration `stated` (of JSON) gives to modules without an alpha of their own.

    Raises ValueError, the part of a sentence, where it states anything but numbers for names of modules.
    """

    def __init__(self, stated):
        if not isinstance(stated, dict):
            raise ValueError("it describes nothing")
        self.alpha, self.patterns = stated.get("lora_alpha"), stated.get("alpha_pattern") or {}
        self.root = stated.get("use_rslora") or False
        if not isinstance(self.patterns, dict) or not all(re.fullmatch(r"[\w.]+", pattern) for pattern in self.patterns):
            raise ValueError("alpha_pattern names modules by a regular expression")
        for alpha in (*self.patterns.values(), *([] if self.alpha is None else [self.alpha])):
            if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) <= 1e6:
                raise ValueError(f"an alpha is {repr(alpha)[:40]}")
        if not isinstance(self.root, bool):
            raise ValueError(f"use_rslora is {repr(self.root)[:40]}")

    def of(self, module, rank):
        """The factor on the LoRA of `module`, 1 where nothing is stated."""
        alpha = next((a for name, a in self.patterns.items() if f".{module}".endswith(f".{name}")), self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root else rank)
