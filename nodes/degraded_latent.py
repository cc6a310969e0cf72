"""The degraded image's latent beside the sampled one: in the model's space, and row for row; and whose VAE made it."""

from .inputs import checked_latent


def in_model_space(model, degraded, node):
    """The samples of a LATENT as `model` works on them. Raises ValueError in `node`'s name where they do not fit it."""
    samples = checked_latent(node, "the degraded latent", degraded["samples"], model.model.latent_format)
    return model.model.process_latent_in(samples)


def as_rows(lq, x, images, node):
    """`lq` as the rows of x: as often as it takes for a batch of `images`, and for every conditioning in the call.

    Raises ValueError in `node`'s name when its size is not x's, or its batch does not fit.
    """
    lq = lq.to(x)
    if lq.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"{node}: the degraded photo has {in_pixels(lq)} pixels but the sampled latent {in_pixels(x)}; sample a latent of the "
            "photo's size, such as the empty one of Encode Photo, and for tiles use Tile Model instead of a node that samples them "
            "one by one."
        )
    if images % lq.shape[0]:  # a search samples several candidates of the whole batch, one after the other
        raise ValueError(
            f"{node}: {lq.shape[0]} degraded latents for a sampled batch of {images}; give one "
            f"degraded latent, or as many as are sampled."
        )
    return lq.repeat(x.shape[0] // lq.shape[0], *[1] * (lq.ndim - 1))


def in_pixels(latent, scale=8):
    """The size of `latent` (..., h, w) as an artist knows it."""
    return f"{scale * latent.shape[-1]} x {scale * latent.shape[-2]}"


def check_vae(node, vae, model):
    """Raises ValueError in `node`'s name when `vae` is another kind of model's than the MODEL `model`: before anything is sampled."""
    theirs, needed = getattr(vae, "latent_channels", None), model.model.latent_format.latent_channels
    if theirs is not None and theirs != needed:
        raise ValueError(
            f"{node}: the VAE belongs to another kind of model (it has {theirs} channels, the model {needed}); load the model's own VAE."
        )
