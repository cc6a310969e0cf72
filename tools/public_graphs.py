"""The graphs for the other restorers of other authors: one function each."""

from .graph_files import FLUX_FP8, HUB, KLEIN, KLEIN_TEXT, KLEIN_VAE, KONTEXT, T5_FP8
from .public_restoration import GGUF, NOT_TRIED, PRESS_R, PublicRestoration
from .restoration import OWN_PHOTO

ONE_STEP = "omgsr-f-1024"
CONTROLNET = "Flux.1-dev-Controlnet-Upscaler"
DEBLURRING = "deblurring.safetensors"
KONTEXT_LORA = "restore_photo_v4.safetensors"


def controlnet(library, photo, prefix, search):
    also = (
        "\n\n**TTS Sampler (test-time search)** tries variants and keeps what the verifier likes best. It takes up to three times as long "
        "as graph 18."
        if search
        else "\n\nEach tile takes ten steps of FLUX and of the ControlNet; 2048 x 2048 pixels are nine tiles."
    )
    g = PublicRestoration(
        library,
        f"""## Enlarge with a ControlNet{", and search" if search else ""}

jasperai's Upscaler ControlNet holds FLUX.1-dev at your photo; **Tile Model** shows both one tile at a time. {OWN_PHOTO}

*scale_by* enlarges: 2, or 4 for a small photo. *denoise* says how much may change: 0.3 keeps most, 0.5 invents detail. *strength* of \
**Apply ControlNet** holds the result at the photo.{also}

{PRESS_R}

- *controlnet*: *diffusion_pytorch_model.safetensors* of [jasperai/{CONTROLNET}]({HUB}/jasperai/{CONTROLNET}), renamed to \
*{CONTROLNET}.safetensors*

Your card:

- 8 GB: {GGUF}; *tile* 768
- 12 GB: FLUX in fp8
- 24 GB: as it is

{NOT_TRIED}""",
    )
    g.photo_of(photo)
    g.enlarge(2.0)
    g.flux_models_of(FLUX_FP8, T5_FP8)
    control = g.add("ControlNetLoader", control_net_name=f"{CONTROLNET}.safetensors")
    g.group("3 Settings")
    g.encode()
    prompt = g.prompted("", 3.5)
    controlled = g.add(
        "ControlNetApplyAdvanced",
        positive=prompt,
        negative=prompt,
        control_net=control,
        image=g.latent[2],
        strength=0.6,
        start_percent=0.0,
        end_percent=1.0,
        vae=g.vae,
    )
    model = g.add("FluxIRTileModel", model=g.model)
    steps = {"steps": 10, "denoise": 0.4}
    if search:
        samples = g.searcher(steps, model, controlled, latent=0)
    else:
        sigmas = g.add("BasicScheduler", model=model, scheduler="simple", **steps)
        samples = g.custom(model, controlled, sigmas, g.latent[0])
    g.group("4 Result")
    g.show(g.matched(samples, g.image), prefix, view="close-up")
    if search:
        g.drawn(candidates=False)
    return g


def controlnet_once(library):
    return controlnet(library, "fluxir_mountain_small.jpg", "controlnet", search=False)


def controlnet_search(library):
    return controlnet(library, "fluxir_dandelion_original.jpg", "controlnet_search", search=True)


def deblur(library):
    g = PublicRestoration(
        library,
        f"""## Deblur, and search

OminiControl's deblurring LoRA shows FLUX.1-dev your photo beside the prompt. **TTS Sampler (test-time search)** tries variants and keeps \
what the verifier likes best. {OWN_PHOTO}

Say in the prompt what the photo shows. The LoRA was made for 512 x 512 pixels, so the photo is brought to about that size.

{PRESS_R}

- *loras*: *experimental/{DEBLURRING}* of [Yuanshi/OminiControl]({HUB}/Yuanshi/OminiControl)

Your card:

- 8 GB: {GGUF}
- 12 GB: FLUX in fp8
- 24 GB: as it is

It takes up to three times as long as 20 steps of FLUX with the photo's tokens, which are half as many again.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_stream_damaged.jpg")
    g.to_a_megapixel(0.25)
    g.flux_models_of(FLUX_FP8, T5_FP8)
    lora = g.add("FluxIRApplyUMMFLoRA", model=g.model, lora_name=DEBLURRING, strength=1.0)
    g.group("3 Settings")
    g.encode()
    prompt = g.prompted("a photo of a mountain stream, sharp and detailed", 3.5)
    shown = g.add("FluxIRUMMFConditioning", conditioning=prompt, degraded=g.latent, strength=1.0)
    g.searcher({"steps": 20, "denoise": 1.0}, lora, shown)
    g.group("4 Result")
    g.show(g.decode(g.search), "deblurred")
    g.drawn(candidates=False)
    return g


def one_step(library):
    g = PublicRestoration(
        library,
        f"""## Enlarge four times in one step

OMGSR takes a single step: its LoRA on the VAE's encoder turns your photo into what FLUX's latents look like half way through sampling, and \
its LoRA on FLUX goes from there to the finished image. No noise is added, so there is no seed. {OWN_PHOTO}

{PRESS_R}

- *loras/{ONE_STEP}*: the folders *flux_adapter* and *vae_encoder_adapter* of OMGSR-F-1024, which \
[its page](https://github.com/wuer5/OMGSR) links

It was made for the sigmas *0.5051, 0*, guidance 1, no prompt, and tiles of 1024 that overlap by half.

Your card:

- 8 GB: {GGUF}
- 12 GB: FLUX in fp8
- 24 GB: as it is

One step for each tile; 2048 x 2048 pixels are nine tiles.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_mountain_small.jpg")
    g.enlarge(4.0)
    g.flux_models_of(FLUX_FP8, T5_FP8)
    model = g.add(
        "FluxIRApplyPEFTLoRA", model=g.model, lora_name=f"{ONE_STEP}/flux_adapter/adapter_model.safetensors", strength=1.0
    )
    encoder = g.add(
        "FluxIRApplyVAELoRA", vae=g.vae, lora_name=f"{ONE_STEP}/vae_encoder_adapter/adapter_model.safetensors", strength=1.0
    )
    g.group("3 Settings")
    g.latent = g.add("FluxIREncodePhoto", photo=g.image, vae=encoder)
    prompt = g.prompted("", 1.0)
    model = g.add("FluxIRTileModel", model=model, tile=1024, overlap=0.5)
    sigmas = g.add("ManualSigmas", "One step", sigmas="0.5051, 0")
    start = g.add("FluxIRNoisyStartLatent", "Start at the photo itself", model=model, sigmas=sigmas, degraded=g.latent)
    samples = g.custom(model, prompt, sigmas, start, noise=g.add("DisableNoise"))
    g.group("4 Result")
    image = g.add("FluxIRMatchColor", image=g.decode(samples), reference=g.image, method="adain", strength=1.0)
    g.show(image, "one_step", view="close-up")
    return g


def kontext_lora(library):
    g = PublicRestoration(
        library,
        f"""## Restore an old photo with FLUX.1 Kontext

A LoRA for restoration makes Kontext keep to your photo. Kontext slides and enlarges by a few pixels: **Align to Input** moves the result \
back. {OWN_PHOTO}

**FluxKontextImageScale** brings the photo to the size that Kontext knows best, and may crop its edges a little.

{PRESS_R}

- *loras*: a LoRA for Kontext that restores, for instance of \
[cyburn/restore_photo_v4-lora]({HUB}/cyburn/restore_photo_v4-lora); choose it in **Load LoRA**. Its page says which words it wants in the \
prompt.

Your card:

- 8 GB: {GGUF.replace("FLUX", "Kontext")}
- 12 GB: Kontext in fp8
- 24 GB: as it is

It takes 20 steps, each about twice as long as FLUX's, because the photo's tokens come on top. With a search: graph 12.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_dogs_noisy.jpg")
    g.image = g.add("FluxKontextImageScale", image=g.image)[0]
    g.mask = None
    g.flux_models_of(KONTEXT, T5_FP8)
    model = g.add("LoraLoaderModelOnly", model=g.model, lora_name=KONTEXT_LORA, strength_model=1.0)
    g.group("3 Settings")
    g.encode()
    prompt = g.prompted(
        "restore this photo: remove scratches, noise and blur, keep everyone and everything exactly as they are", 2.5
    )
    shown = g.add("ReferenceLatent", conditioning=prompt, latent=g.latent)
    sigmas = g.add("BasicScheduler", model=model, scheduler="simple", steps=20, denoise=1.0)
    samples = g.custom(model, shown, sigmas, g.latent[1])
    g.group("4 Result")
    image = g.add("FluxIRAlignToInput", restored=g.decode(samples), degraded=g.image, correct_scale=True)
    g.show(image, "kontext_restored")
    return g


def klein(library):
    g = PublicRestoration(
        library,
        f"""## Edit a large photo with FLUX.2 klein

FLUX.2 klein (Apache-2.0) edits by instruction in four steps. **Tile Model** shows it one tile at a time, with that tile's part of your \
photo. **Align to Input** moves the result back onto the photo. {OWN_PHOTO}

ComfyUI offers all files for download.

The instruction reaches every tile: say what to do, not what the photo shows. For a prompt of its own for each tile: **Split into Tiles**, \
**Caption Image (Qwen2.5-VL)** and **Prompt per Tile**. **Flux KV Cache** may be added.

Your card:

- 8 GB: {GGUF.replace("FLUX", "klein")}
- 12 GB: klein in fp8
- 24 GB: as it is

Four steps for each tile; 2048 x 2048 pixels are nine tiles.

{NOT_TRIED}""",
    )
    g.photo_of("fluxir_brushes_jpeg.jpg")
    g.enlarge(2.0)
    size = g.add("GetImageSize", image=g.image)
    g.group("2 Models")
    model = g.add("UNETLoader", models=[KLEIN], unet_name=KLEIN["name"], weight_dtype="default")
    clip = g.add("CLIPLoader", models=[KLEIN_TEXT], clip_name=KLEIN_TEXT["name"], type="flux2", device="default")
    g.vae = g.add("VAELoader", models=[KLEIN_VAE], vae_name=KLEIN_VAE["name"])
    g.group("3 Settings")
    g.encode()
    text = g.add(
        "CLIPTextEncode",
        "Instruction",
        text="restore this photo: remove noise, blur and compression, change nothing else",
        clip=clip,
    )
    shown = g.add("ReferenceLatent", conditioning=text, latent=g.latent)
    model = g.add("FluxIRTileModel", model=model)
    sigmas = g.add("Flux2Scheduler", steps=4, width=size[0], height=size[1])
    samples = g.custom(model, shown, sigmas, g.latent[1])
    g.group("4 Result")
    image = g.add("FluxIRAlignToInput", restored=g.decode(samples), degraded=g.image, correct_scale=True)
    g.show(image, "klein")
    return g
