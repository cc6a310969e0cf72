"""What every node asks of the LATENTs and IMAGEs that it is given: one sentence, in its name, where they do not fit."""

import torch

from .runtime import to_planes

SIDES = {1: "length", 2: "height, width", 3: "frames, height, width"}


def plain_samples(node, name, samples):
    """`samples` of the LATENT `name`. Raises ValueError in `node`'s name where they are not one tensor."""
    if getattr(samples, "is_nested", False):
        raise ValueError(f"{node}: {name} holds sound and video together; give the latent of an image.")
    return samples


def checked_latent(node, name, samples, latents, whose="this model's"):
    """`samples` of the LATENT `name`, which are images (B, C, H, W), or whatever the latent format `latents` says.

    Raises ValueError in `node`'s name where they have another shape, are empty, or hold NaN or infinity.
    """
    plain_samples(node, name, samples)
    shape = list(samples.shape)
    if len(shape) != 2 + latents.latent_dimensions or shape[1] != latents.latent_channels:
        raise ValueError(
            f"{node}: {name} is another kind of model's (its shape is {shape}, but {whose} latents are (batch, "
            f"{latents.latent_channels}, {SIDES[latents.latent_dimensions]})); encode the image with the model's own VAE."
        )
    if 0 in shape:
        raise ValueError(f"{node}: {name} is empty, of the shape {shape}; encode at least one image of 8 pixels a side.")
    if not torch.isfinite(samples).all():
        raise ValueError(f"{node}: {name} holds NaN or infinity; encode the image again, or check where it comes from.")
    return samples


def checked_image(node, name, images, finite=True):
    """`images` of the IMAGE `name`, (B, H, W, C) of 1, 3 or 4 channels in any float type.

    Raises ValueError in `node`'s name where they are anything else or empty, and, if `finite`, where they hold NaN or infinity.
    """
    shape = list(images.shape)
    if len(shape) != 4 or shape[3] not in (1, 3, 4) or not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise ValueError(
            f"{node}: {name} has the shape {shape} and the type {kind}, but an IMAGE is (batch, height, width, channels) of 1, 3 "
            "or 4 channels in float; connect a node that gives such images."
        )
    if 0 in shape:
        raise ValueError(f"{node}: {name} is empty, of the shape {shape}; give at least one image.")
    sound = torch.isfinite(images).flatten(1).all(1).tolist() if finite else ()
    if False in sound:
        raise ValueError(f"{node}: {name} holds NaN or infinity in image {sound.index(False) + 1}; give images without.")
    return images


def given_planes(node, name, images, finite=True):
    """The IMAGE `name`, as `checked_image`, in the form (B, 3, H, W) float32."""
    return to_planes(checked_image(node, name, images, finite))
