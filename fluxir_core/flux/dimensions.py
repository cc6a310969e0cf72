"""What sizes a FLUX transformer: everything the adapter must agree on with its base."""

import re
from dataclasses import dataclass

HEAD_DIM = 128


@dataclass(frozen=True)
class FluxDimensions:
    """Sizes of a FLUX transformer. `in_channels` counts a token's values (16 latent channels x 2 x 2)."""

    hidden_size: int
    num_heads: int
    context_dim: int
    vec_dim: int
    double_blocks: int
    single_blocks: int
    guidance_embed: bool
    in_channels: int = 64
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: float = 10000
    mlp_ratio: float = 4.0

    @property
    def blocks(self):
        return self.double_blocks + self.single_blocks

    @classmethod
    def from_state_dict(cls, state_dict):
        """Reads the sizes from a transformer's weights, in BFL's (ComfyUI's) or diffusers' layout.

        The head size, the rotary axes and the MLP ratio are not written in the weights and are FLUX's own.
        Raises ValueError when the weights are not a FLUX transformer's.
        """
        diffusers = "x_embedder.weight" in state_dict
        image, text, pooled, guidance, double, single = (
            (
                "x_embedder",
                "context_embedder",
                "time_text_embed.text_embedder.linear_1",
                "time_text_embed.guidance_embedder.linear_1",
                "transformer_blocks",
                "single_transformer_blocks",
            )
            if diffusers
            else ("img_in", "txt_in", "vector_in.in_layer", "guidance_in.in_layer", "double_blocks", "single_blocks")
        )
        missing = [f"{name}.weight" for name in (image, text, pooled) if f"{name}.weight" not in state_dict]
        if missing:
            raise ValueError(f"These weights are not a FLUX transformer's: {missing[0]} is missing; give a FLUX.1 file.")
        hidden_size, in_channels = state_dict[f"{image}.weight"].shape
        return cls(
            hidden_size=hidden_size,
            num_heads=hidden_size // HEAD_DIM,
            context_dim=state_dict[f"{text}.weight"].shape[1],
            vec_dim=state_dict[f"{pooled}.weight"].shape[1],
            double_blocks=_count_blocks(state_dict, double),
            single_blocks=_count_blocks(state_dict, single),
            guidance_embed=f"{guidance}.weight" in state_dict,
            in_channels=in_channels,
        )


def _count_blocks(state_dict, name):
    matches = (re.match(rf"{name}\.(\d{{1,6}})\.", key) for key in state_dict)
    indices = {int(match[1]) for match in matches if match}
    if len(indices) <= max(indices, default=-1):
        missing = min(set(range(len(indices))) - indices)
        raise ValueError(f"These weights are not a whole FLUX transformer's: {name}.{missing} is missing; give a FLUX.1 file.")
    return len(indices)


FLUX_DEV = FluxDimensions(
    hidden_size=3072,
    num_heads=24,
    context_dim=4096,
    vec_dim=768,
    double_blocks=19,
    single_blocks=38,
    guidance_embed=True,
)
"""FLUX.1-dev (and, without guidance_embed, FLUX.1-schnell)."""
