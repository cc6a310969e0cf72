"""LucidFlux on diffusers' FluxTransformer2DModel, by what it offers to ControlNets."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from ...fluxir_core.flux.prompt_files import StoredPrompt, load_prompt
from ...fluxir_core.lucidflux.files import check_lucidflux_base, load_lucidflux
from ...fluxir_core.lucidflux.model import GUIDANCE, Conditions, LucidFlux
from .model_folder import NetworkSpaceVAE, model_folder, only_file, open_transformer, open_vae
from .transformer import call_transformer, exact_time, flux_dimensions


class ShownImages(NamedTuple):
    """The base's prompt with semantic tokens behind it (B, L + M, context), pooled (B, vec), the positions of the image's
    tokens (N, 3), and the branches' Conditions."""

    text: torch.Tensor
    pooled: torch.Tensor
    image_ids: torch.Tensor
    conditions: Conditions


class LucidFluxHost:
    """Lets LucidFlux's `network` steer `transformer`, its residuals times `strength`; undone by `remove`.

    Strength 0 does not run it, and shows the base no semantic tokens. Raises WeightFileError when it was made for a base of
    other sizes.
    """

    def __init__(self, transformer, network, strength=1.0):
        check_lucidflux_base(network.config, flux_dimensions(transformer))
        self.transformer, self.network, self.strength = transformer, network, strength
        self._handles = list(exact_time(transformer))

    def remove(self):
        """Takes every hook off the transformer again."""
        for handle in self._handles:
            handle.remove()

    def prepare(self, degraded, cleaned, features, text, pooled, image_ids):
        """Computes what does not depend on the time, once per image.

        Args:
            degraded: (B, 3, 8 H, 8 W) in [0, 1].
            cleaned: what a degradation remover makes of it, (B, 3, 8 H, 8 W) in [0, 1].
            features: the image encoder's of the whole cleaned image, (B, M, width).
            text: (B, L, context).
            pooled: (B, vec).
            image_ids: positions of the image's tokens, (N, 3).

        Returns:
            The condition for `velocity`.
        """
        conditions = self.network.prepare(degraded, cleaned, text, pooled, image_ids)
        tokens = self.network.semantic_tokens(features)
        return ShownImages(torch.cat([text, tokens], 1) if self.strength else text, pooled, image_ids, conditions)

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
        residuals = {}
        if self.strength:
            control = self.network(tokens, t, guidance, condition.conditions)
            blocks = len(self.transformer.transformer_blocks)
            residuals["controlnet_block_samples"] = [self.strength * control.residual(block) for block in range(blocks)]
        shown = (condition.text, condition.pooled, condition.image_ids)
        return call_transformer(self.transformer, tokens, t, *shown, guidance, **residuals)


@dataclass
class LucidFluxModels:
    """A model folder for LucidFlux; `image_encoder` is transformers' SiglipVisionModel."""

    transformer: torch.nn.Module
    vae: NetworkSpaceVAE
    network: LucidFlux
    prompt: StoredPrompt
    image_encoder: Any
    guidance: float = GUIDANCE

    def features(self, cleaned):
        """The image encoder's last hidden state (B, M, width) of `cleaned` (B, 3, H, W) in [0, 1], squeezed to its square."""
        side = self.image_encoder.config.image_size
        square = F.interpolate(cleaned.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
        pixels = (255 * square).round().clamp(0, 255) / 255  # as its preprocessor sees them
        weight = next(self.image_encoder.parameters())
        return self.image_encoder(pixel_values=(2 * pixels - 1).to(weight)).last_hidden_state


def load_lucidflux_models(folder, device="cpu", dtype=torch.float32):
    """Loads a model folder with LucidFlux, a path.

    It holds transformer and vae (or diffusion_models and vae) as for `load_models`; lucidflux with one safetensors file, made
    with `fluxir convert --prompt`; and siglip, SigLIP 2 so400m patch16-512 as transformers saves it. Raises ValueError with one
    sentence on another folder.
    """
    folder = model_folder(folder)
    loaded, prompt = load_lucidflux(only_file(folder / "lucidflux")), load_lucidflux_prompt(folder)
    network = LucidFlux(loaded.config)
    network.load_state_dict(loaded.state_dict)
    transformer, vae = open_transformer(folder, dtype), open_vae(folder, dtype)
    image_encoder = _open_image_encoder(folder / "siglip", loaded.config.features)
    modules: list[Any] = [transformer, vae.vae, network, image_encoder]
    for module in modules:
        module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    prompt = StoredPrompt(prompt.text.to(device, dtype), prompt.pooled.to(device, dtype), prompt.words)
    return LucidFluxModels(transformer, vae, network, prompt, image_encoder)


def load_lucidflux_prompt(folder):
    """The StoredPrompt of a model folder. Raises ValueError as `load_lucidflux_models`."""
    return load_prompt(only_file(model_folder(folder) / "lucidflux"))


def _open_image_encoder(folder, width):
    from transformers import SiglipVisionModel

    if not (folder / "config.json").exists():
        raise ValueError(f"--model: {folder} holds no image encoder; put SigLIP 2 so400m patch16-512 there, with its config.json.")
    encoder = SiglipVisionModel.from_pretrained(folder, local_files_only=True)
    if encoder.config.hidden_size != width:
        raise ValueError(
            f"--model: the image encoder in {folder} gives {encoder.config.hidden_size} values a token, but LucidFlux needs {width}; "
            "put SigLIP 2 so400m patch16-512 there."
        )
    return encoder
