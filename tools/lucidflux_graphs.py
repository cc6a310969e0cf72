"""The graphs for LucidFlux: one function each."""

from .graph_files import HUB
from .public_restoration import GGUF, NOT_TRIED, PRESS_R, PublicRestoration
from .restoration import OWN_PHOTO

LUCIDFLUX_FILES = f"""{PRESS_R}

- *model_patches*: *lucidflux.pth* and *prompt_embeddings.pt* of [W2GenAI/LucidFlux]({HUB}/W2GenAI/LucidFlux)
- *upscale_models*: *general_swinir_v1.ckpt* of [lxq007/DiffBIR]({HUB}/lxq007/DiffBIR)
- *clip_vision*: *model.safetensors* of [google/siglip2-so400m-patch16-512]({HUB}/google/siglip2-so400m-patch16-512), renamed to \
*siglip2-so400m-patch16-512.safetensors*"""
LUCIDFLUX_CARDS = f"""- 8 GB: {GGUF}, and LucidFlux made half as large by *fluxir convert --precision fp8*
- 12 GB: FLUX in fp8, LucidFlux likewise
- 24 GB: as it is"""


def lucidflux(library):
    g = PublicRestoration(
        library,
        f"""## Restore a photo with LucidFlux

LucidFlux is a trained restorer for FLUX.1-dev that everybody can download. It looks at your photo, and at what a degradation remover \
makes of it; it needs no caption and no text encoder. {OWN_PHOTO}

{LUCIDFLUX_FILES}

Your card:

{LUCIDFLUX_CARDS}

It takes as long as 27 steps of FLUX. Your photo is brought to one megapixel; graph 16 is for more.

Sharper: LucidNFT, by **Apply LucidFlux LoRA** and **Apply PEFT LoRA**.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_stream_damaged.jpg")
    g.to_a_megapixel()
    g.lucidflux_files()
    g.group("3 Settings")
    g.lucid()
    samples = g.custom(g.restorer, g.prompt, g.sigmas, g.latent[1])
    g.group("4 Result")
    g.show(g.matched(samples, g.cleaned), "lucidflux")
    return g


def lucidflux_large(library):
    g = PublicRestoration(
        library,
        f"""## A large photo with LucidFlux

Like graph 15, twice as large. **Tile Model** shows FLUX one tile at a time, and LucidFlux that tile's part of both images. **TTS Sampler \
(test-time search)** tries variants and keeps what the verifier likes best. {OWN_PHOTO}

Set *scale_by* to 1 for a photo that is large, up to 4 for a small one.

{LUCIDFLUX_FILES}

Your card:

{LUCIDFLUX_CARDS}

Each tile takes up to three times as long as a photo in graph 15; 2048 x 2048 pixels are nine tiles. Without a search: \
**SamplerCustomAdvanced** in its place.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_mountain_small.jpg")
    g.enlarge(2.0)
    g.lucidflux_files()
    g.group("3 Settings")
    g.lucid(tiles=True)
    g.searcher(g.sigmas, g.restorer, g.prompt)
    g.group("4 Result")
    g.show(g.matched(g.search, g.cleaned), "lucidflux_large", view="close-up")
    g.drawn(candidates=False)
    return g


def lucidflux_part(library):
    g = PublicRestoration(
        library,
        f"""## A part of a photo, such as a face

A face of 100 pixels is too small for FLUX. Here a part is cut out, enlarged to one megapixel, restored with LucidFlux, and put back with \
soft edges. {OWN_PHOTO}

*left*, *top*, *width* and *height* say which part: take some of its surroundings, too.

{LUCIDFLUX_FILES}

Your card:

{LUCIDFLUX_CARDS}

It takes as long as graph 15. Who is in the photo may change: lower *strength* of **Apply LucidFlux**.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_dogs_noisy.jpg")
    whole = g.image
    left, top, width, height = (
        g.add("PrimitiveInt", name, value=value) for name, value in (("left", 224), ("top", 208), ("width", 256), ("height", 256))
    )
    part = g.add("ImageCrop", "Cut out", image=whole, width=width, height=height, x=left, y=top)
    g.image, g.mask = part[0], None
    g.to_a_megapixel()
    g.lucidflux_files()
    g.group("3 Settings")
    g.lucid()
    samples = g.custom(g.restorer, g.prompt, g.sigmas, g.latent[1])
    g.group("4 Result")
    restored = g.matched(samples, g.image)
    small = g.add(
        "ImageScale", "Back to its size", image=restored, upscale_method="lanczos", width=width, height=height, crop="disabled"
    )
    mask = g.add("SolidMask", value=1.0, width=width, height=height)
    soft = g.add("FeatherMask", "Soft edges", mask=mask, left=32, top=32, right=32, bottom=32)
    image = g.add(
        "ImageCompositeMasked", "Put back", destination=whole, source=small, x=left, y=top, resize_source=False, mask=soft
    )
    g.show(image, "lucidflux_part", before=whole, view="close-up")
    return g
