"""diffusers' FluxTransformer2DModel: its sizes, one call of it, and exact times."""

from ...fluxir_core.flux.dimensions import FluxDimensions


def flux_dimensions(transformer):
    """The FluxDimensions of a FluxTransformer2DModel.

    From its configuration, not its weights: quantization changes their shapes, and a LoRA their names.
    """
    config = transformer.config
    return FluxDimensions(
        hidden_size=config.num_attention_heads * config.attention_head_dim,
        num_heads=config.num_attention_heads,
        context_dim=config.joint_attention_dim,
        vec_dim=config.pooled_projection_dim,
        double_blocks=config.num_layers,
        single_blocks=config.num_single_layers,
        guidance_embed=config.guidance_embeds,
        in_channels=config.in_channels,
        axes_dim=tuple(config.axes_dims_rope),
    )


def call_transformer(transformer, tokens, t, text, pooled, image_ids, guidance, **residuals):
    """Calls a bare FluxTransformer2DModel.

    Args:
        transformer: the model.
        tokens: x_t, (B, N, 64).
        t: (B,) in [0, 1].
        text: (B, L, context).
        pooled: (B, vec).
        image_ids: positions of the image's tokens, (N, 3).
        guidance: (B,); left out where the model has none.
        residuals: a ControlNet's, by diffusers' names.

    Returns:
        The velocity, (B, N, 64).
    """
    return transformer(
        hidden_states=tokens,
        timestep=t,
        encoder_hidden_states=text,
        pooled_projections=pooled,
        img_ids=image_ids,
        txt_ids=image_ids.new_zeros(text.shape[1], 3),
        guidance=guidance if transformer.config.guidance_embeds else None,
        return_dict=False,
        **residuals,
    )[0]


def exact_time(transformer):
    """Hooks that keep `timestep` and `guidance` in float32 through FluxTransformer2DModel. Returns their handles.

    The model itself rounds them to the type of its activations before it scales them by 1000: in bfloat16 a timestep is
    then off by up to 2 of 1000.
    """
    exact = []

    def remember(_module, _args, kwargs):
        given = (kwargs["timestep"], kwargs.get("guidance"))
        exact[:] = [value.float() * 1000 for value in given if value is not None]

    def replace(_module, args):
        return (*exact, args[-1])

    return (
        transformer.register_forward_pre_hook(remember, with_kwargs=True),
        transformer.time_text_embed.register_forward_pre_hook(replace),
    )
