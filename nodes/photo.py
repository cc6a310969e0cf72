"""A photo of any size into a model and back out: padded to whole tokens, in tiles where it is large, cut to its own size."""

import time
from types import SimpleNamespace

import comfy.model_management
import torch
from comfy_api.latest import io

from ..fluxir_core.execution.tiled_vae import decode_in_tiles, encode_in_tiles, tile_count
from ..fluxir_core.image.padding import crop_back, pad_to_tokens
from ..fluxir_core.searches.summary import say_time
from .inputs import checked_image, checked_latent, given_planes
from .runtime import show, to_planes

ENCODE_NODE, DECODE_NODE = "Encode Photo", "Decode Photo"
TILE, OVERLAP = 1024, 1 / 8
"""Pixels a side above which a VAE works in tiles, and how much of a tile its neighbor shares: one pass, so a third of the time
that core's tiled nodes take."""
PATCH = 2
"""Latent pixels a side of one token."""


class EncodePhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIREncodePhoto",
            display_name=ENCODE_NODE,
            category="FluxIR/image",
            description="Encodes a photo of any size: fills its edges up to whole blocks of the model, and works in tiles if it is "
            "large. Decode Photo brings the result back to the photo's own size.",
            search_aliases=["vae encode", "any size", "pad image", "large photo", "tiled vae", "restore photo", "fluxir"],
            inputs=[
                io.Image.Input("photo", tooltip="The photo, of any size."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The photo as a latent, for Apply FluxIR Adapter or UMMF Conditioning."
                ),
                io.Latent.Output(display_name="empty", tooltip="An empty latent of the same size, for the sampler."),
                io.Image.Output(display_name="padded", tooltip="The photo with its edges filled up, for Apply ControlNet."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, photo, vae) -> io.NodeOutput:
        planes = given_planes(ENCODE_NODE, "photo", photo)
        padded = pad_to_tokens(planes, PATCH * vae.spacial_compression_encode())
        samples = encode(vae, padded, lambda text: show(cls, text))
        return io.NodeOutput({"samples": samples}, {"samples": torch.zeros_like(samples)}, padded.movedim(1, -1))


class DecodePhoto(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRDecodePhoto",
            display_name=DECODE_NODE,
            category="FluxIR/image",
            description="Decodes the result of Encode Photo and cuts it to the photo's own size, with the photo's transparency.",
            search_aliases=["vae decode", "any size", "crop image", "original size", "alpha", "tiled vae", "fluxir"],
            inputs=[
                io.Latent.Input("samples", tooltip="The sampled latent."),
                io.Vae.Input("vae", tooltip="The VAE of the model."),
                io.Image.Input("photo", tooltip="The photo that went into Encode Photo: the result gets its size."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The mask of Load Image. Where the photo is transparent the result is, too.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The images, as large as the photo.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, samples, vae, photo, mask=None) -> io.NodeOutput:
        checked_image(DECODE_NODE, "photo", photo, finite=False)
        latents = SimpleNamespace(latent_channels=vae.latent_channels, latent_dimensions=vae.latent_dim)
        given = checked_latent(DECODE_NODE, "samples", samples["samples"], latents, "this VAE's")
        try:
            images = crop_back(decode(vae, given, lambda text: show(cls, text)), photo.shape[1:3])
        except ValueError as error:
            raise ValueError(f"{DECODE_NODE}: {error}") from None
        alpha = _alpha(photo, mask)
        if alpha is not None:
            images = torch.cat([images, alpha[torch.arange(len(images)) % len(alpha)].to(images)], 1)
        return io.NodeOutput(images.movedim(1, -1).contiguous())


def _alpha(photo, mask):
    """The photo's transparency (B, 1, H, W), or None where it is opaque. Load Image's mask is 1 where nothing is seen."""
    if photo.shape[-1] == 4:
        return photo[..., 3:].float().movedim(-1, 1)
    if mask is None or not mask.any():
        return None
    planes = 1 - mask.float().reshape(-1, 1, *mask.shape[-2:])
    return torch.nn.functional.interpolate(planes, photo.shape[1:3], mode="bilinear", antialias=True).clamp(0, 1)


def encode(vae, planes, say=None):
    """The latents of images `planes` (B, 3, H, W) of any size, padded to whole tokens; `say` is told what it will take."""
    scale = vae.spacial_compression_encode()
    padded = pad_to_tokens(planes, PATCH * scale)
    told = _teller(say, padded.shape[-2] // scale, padded.shape[-1] // scale, scale)

    def code(images):
        comfy.model_management.throw_exception_if_processing_interrupted()
        return told(lambda: vae.encode(images.movedim(1, -1).contiguous()))

    return encode_in_tiles(code, padded, TILE // scale, scale, OVERLAP)


def decode(vae, latents, say=None):
    """The images (B, 3, H, W) in [0, 1] of `latents`; `say` is told what it will take. Raises ValueError for a video's."""
    scale = vae.spacial_compression_decode()
    told = _teller(say, latents.shape[-2], latents.shape[-1], scale)

    def code(tile):
        comfy.model_management.throw_exception_if_processing_interrupted()
        images = told(lambda: vae.decode(tile))
        if images.ndim != 4:
            raise ValueError("the latent is a video's; decode it with VAE Decode.")
        return to_planes(images)

    return decode_in_tiles(code, latents, TILE // scale, scale, OVERLAP).clamp(0, 1)


def _teller(say, height, width, scale):
    """A function that calls what codes a tile; after the first of several, `say` is told how long all will take."""
    left = [tile_count(height, width, TILE // scale, OVERLAP)] if say else []

    def timed(work):
        started = time.perf_counter()
        result = work()
        if left and (count := left.pop()) > 1:
            seconds = count * (time.perf_counter() - started)
            say(f"{width * scale} x {height * scale} pixels in {count} tiles of up to {TILE}: about {say_time(seconds)}")
        return result

    return timed
