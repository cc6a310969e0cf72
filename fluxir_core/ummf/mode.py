"""How a FLUX transformer reads condition images: Unified Multi-Modal Fusion (UMMF, arXiv 2603.22027)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConditionMode:
    """What condition tokens are to the others in the sequence [text; z_t; condition].

    Args:
        positions: "shared" puts the condition's tokens on the output's own positions (0, h, w), "offset" on (1, h, w), and
            those of further images where FLUX.1 Kontext has them (`reference_places`).
        timestep: that embeds the condition tokens, in [0, 1]; None for that of the output's tokens.
        guidance: that embeds the condition tokens; None for that of the output's tokens.
        tokens: what the LoRA changes: the "condition" tokens only, or "all".
        attention: "joint" lets the condition attend to everything, "alone" only to itself; with a fixed timestep its keys and
            values are then the same at every step.
        images: "joint" lets several condition images attend to each other, "apart" does not.

    Raises:
        ValueError: any other value.
    """

    positions: str = "shared"
    timestep: float | None = 0.0
    guidance: float | None = 1.0
    tokens: str = "condition"
    attention: str = "joint"
    images: str = "joint"

    def __post_init__(self):
        for name, allowed in (
            ("positions", ("shared", "offset")),
            ("tokens", ("condition", "all")),
            ("attention", ("joint", "alone")),
            ("images", ("joint", "apart")),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"ConditionMode: {name} is {value!r}; use {' or '.join(map(repr, allowed))}.")
        if self.timestep is not None and not 0 <= self.timestep <= 1:
            raise ValueError(f"ConditionMode: timestep is {self.timestep}; use a value from 0 to 1, or None to share it.")

    @property
    def constant(self):
        """Whether the condition's keys and values are the same at every step."""
        return self.attention == "alone" and self.timestep is not None


OMINI = ConditionMode(images="apart")
"""OminiControl's public LoRAs, and the paper's default."""


KONTEXT = ConditionMode("offset", None, None, "all")
"""FLUX.1 Kontext and LoRAs for it: what ComfyUI does with reference latents by itself."""
