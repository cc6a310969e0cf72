"""The degraded image's latent beside the sampled one: in the model's space, and row for row."""


def in_model_space(model, degraded, node):
    """The samples of a LATENT as `model` works on them. Raises ValueError in `node`'s name when they are another model's."""
    samples, latents = degraded["samples"], model.model.latent_format
    if samples.ndim != 2 + latents.latent_dimensions or samples.shape[1] != latents.latent_channels:
        sides = {1: "length", 2: "height, width"}.get(latents.latent_dimensions, "frames, height, width")
        raise ValueError(
            f"{node}: the degraded latent has shape {list(samples.shape)} but this model's latents "
            f"are (batch, {latents.latent_channels}, {sides}); encode the image with the model's own VAE."
        )
    return model.model.process_latent_in(samples)


def as_rows(lq, x, images, node):
    """`lq` as the rows of x: as often as it takes for a batch of `pictures`, and for every conditioning in the call.

    Raises ValueError in `node`'s name when its size is not x's, or its batch does not fit.
    """
    lq = lq.to(x)
    if lq.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"{node}: the degraded latent is {lq.shape[-1]}x{lq.shape[-2]} but the sampled latent is "
            f"{x.shape[-1]}x{x.shape[-2]}; sample a latent of the degraded image's size."
        )
    if images % lq.shape[0]:  # a search samples several candidates of the whole batch, one after the other
        raise ValueError(
            f"{node}: {lq.shape[0]} degraded latents for a sampled batch of {images}; give one "
            f"degraded latent, or as many as are sampled."
        )
    return lq.repeat(x.shape[0] // lq.shape[0], *[1] * (lq.ndim - 1))
