"""The miniature's autoencoder: a TAESD-layout network trained narrow, stored at TAESD's fixed width.

TAESD is 64 channels wide at every scale, and at full resolution that is what training it costs. `NarrowTAESD` keeps only some
channels at the finer scales; `widen` embeds it exactly in the standard layout (the other channels are zero), which is what
ComfyUI's VAELoader and diffusers' AutoencoderTiny load.
"""

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ..diffusers_host.model_folder import only_file

NARROW, WIDTHS = (16, 32, 64, 64), (32, 64, 64, 64)
"""Channels kept at scales 1, 1/2, 1/4 and 1/8: where training begins, at a third of the cost, and what it grows to."""

TAESD_WIDTH = 64
LATENT_CHANNELS = 16

COLORS = 3
MEAN, SPREAD = 0.4, 0.25
"""About the mean and standard deviation of a photo's channels in [0, 1]."""


class Block(nn.Module):
    """TAESD's residual block; the last convolution starts at zero, so that the untrained network is shallow."""

    def __init__(self, width):
        super().__init__()
        conv = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(conv[0], nn.ReLU(), conv[1], nn.ReLU(), conv[2])
        for parameter in conv[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return F.relu(self.conv(x) + x)


class NarrowTAESD(nn.Module):
    """Images (B, 3, H, W) in [0, 1] <-> latents (B, 16, H/8, W/8) with about zero mean and unit variance."""

    def __init__(self, widths=WIDTHS):
        super().__init__()

        def conv(n_in, n_out, **kwargs):
            return nn.Conv2d(n_in, n_out, 3, padding=1, **kwargs)

        encoder = [conv(3, widths[0]), Block(widths[0])]
        for finer, coarser in zip(widths, widths[1:]):
            encoder += [conv(finer, coarser, stride=2, bias=False), *(Block(coarser) for _ in range(3))]
        self.taesd_encoder = nn.Sequential(*encoder, conv(widths[-1], LATENT_CHANNELS))

        decoder = [nn.Identity(), conv(LATENT_CHANNELS, widths[-1]), nn.ReLU(), *(Block(widths[-1]) for _ in range(3))]
        for level in (2, 1, 0):
            decoder += [nn.Upsample(scale_factor=2), conv(widths[level + 1], widths[level], bias=False)]
            decoder += [Block(widths[level]) for _ in range(3 if level else 1)]
        self.taesd_decoder = nn.Sequential(*decoder, conv(widths[0], COLORS))
        self._carry_mean_color()

    @torch.no_grad()
    def _carry_mean_color(self):
        """Starts the first three channels of every convolution as the image itself, averaged down and interpolated up.

        From random weights the ReLUs can lose an axis of color early, and it never comes back.
        """
        tent = torch.outer(*2 * [torch.tensor([0.25, 0.5, 0.25])])
        same = F.pad(torch.ones(1, 1), (1, 1, 1, 1))

        def carry(conv, kernel, gain=1.0, bias=0.0):
            conv.weight[:COLORS] = torch.eye(COLORS, conv.in_channels)[..., None, None] * kernel * gain
            if conv.bias is not None:
                conv.bias[:COLORS] = bias

        for side in (self.taesd_encoder, self.taesd_decoder):
            first, *between, last = (layer for layer in side if isinstance(layer, nn.Conv2d))
            for conv in between:
                carry(conv, tent)
            if side is self.taesd_encoder:
                carry(first, same)
                carry(last, same, 1 / SPREAD, -MEAN / SPREAD)
            else:
                carry(first, same, SPREAD, MEAN)
                carry(last, same)

    @torch.no_grad()
    def grown(self, widths):
        """A wider net that computes the same: what reads a new channel starts at zero (Net2Net, arXiv 1511.05641, in kind)."""
        wide = NarrowTAESD(widths)
        own = self.state_dict()
        for key, value in wide.state_dict().items():
            old = own[key]
            if old.ndim == 4:
                value[:, old.shape[1] :] = 0
            elif value.ndim == 1:
                value.zero_()
            value[tuple(slice(extent) for extent in old.shape)] = old
            if old.ndim == 4 and key.endswith("conv.4.weight"):
                value[old.shape[0] :] = 0  # a residual block's end: its new channels add nothing yet
        return wide

    def encode(self, pixels):
        return self.taesd_encoder(pixels)

    def decode(self, latents):
        return self.taesd_decoder(torch.tanh(latents / 3) * 3)


def widen(narrow):
    """State dict of `narrow` in TAESD's fixed-width layout: each convolution zero-padded to 64 channels where it was narrower."""
    first = ("taesd_encoder.0.", "taesd_decoder.1.")
    last = tuple(f"{name}.{len(side) - 1}." for name, side in narrow.named_children())
    widened = {}
    for key, value in narrow.state_dict().items():
        shape = list(value.shape)
        if not key.startswith(last):
            shape[0] = TAESD_WIDTH
        if value.ndim == 4 and not key.startswith(first):
            shape[1] = TAESD_WIDTH
        widened[key] = value.new_zeros(shape)
        widened[key][tuple(slice(extent) for extent in value.shape)] = value
    return widened


def narrowed(state_dict):
    """The NarrowTAESD that `widen` made `state_dict` from."""
    narrow = NarrowTAESD()
    shapes = {key: value.shape for key, value in narrow.state_dict().items()}
    narrow.load_state_dict({key: state_dict[key][tuple(map(slice, shape))].float() for key, shape in shapes.items()})
    return narrow.eval()


def open_autoencoder(folder, device="cpu"):
    """The frozen NarrowTAESD of the model folder `folder`. Raises ValueError where the VAE there is another one."""
    path = only_file(folder / "vae")
    try:
        return narrowed(load_file(path)).to(device).requires_grad_(False)
    except (KeyError, RuntimeError):
        raise ValueError(
            f"{path} is not an autoencoder of `fluxir train miniature`; train that model on images of your own."
        ) from None


def latent_statistics_loss(latents):
    """How far the latents' per-channel mean and standard deviation are from 0 and 1: what the flow model expects."""
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return (mean**2).mean() + ((std - 1) ** 2).mean()
