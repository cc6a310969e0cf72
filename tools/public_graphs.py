"""What the shipped graphs for restorers of other authors are: one function each."""

from .graph_list import FLUX_VAE, HUB, KONTEXT, OWN_PHOTO, T5_FP8, Restoration, hub_file

FLUX_FP8 = hub_file("diffusion_models", "Kijai/flux-fp8", "flux1-dev-fp8.safetensors")
KLEIN = hub_file("diffusion_models", "black-forest-labs/FLUX.2-klein-4b-fp8", "flux-2-klein-4b-fp8.safetensors")
KLEIN_TEXT = hub_file("text_encoders", "Comfy-Org/z_image_turbo", "split_files/text_encoders/qwen_3_4b.safetensors")
KLEIN_VAE = hub_file("vae", "Comfy-Org/flux2-dev", "split_files/vae/flux2-vae.safetensors")
ONE_STEP = "omgsr-f-1024"
PRESS_R = "ComfyUI offers FLUX for download. These files you fetch yourself into ComfyUI's *models* folder; then press R:"
GGUF = "a Q4 GGUF of FLUX, with **Unet Loader (GGUF)** of the ComfyUI-GGUF pack for **Load Diffusion Model**"
NOT_TRIED = "We had no card to try this graph with the real files."
LUCIDFLUX_FILES = f"""{PRESS_R}

- *model_patches*: `lucidflux.pth` and `prompt_embeddings.pt` of [W2GenAI/LucidFlux]({HUB}/W2GenAI/LucidFlux)
- *upscale_models*: `general_swinir_v1.ckpt` of [lxq007/DiffBIR]({HUB}/lxq007/DiffBIR)
- *clip_vision*: `model.safetensors` of [google/siglip2-so400m-patch16-512]({HUB}/google/siglip2-so400m-patch16-512), renamed to \
`siglip2-so400m-patch16-512.safetensors`"""
LUCIDFLUX_CARDS = f"""- 8 GB: {GGUF}, and LucidFlux made half as large by `fluxir convert --precision fp8`
- 12 GB: FLUX in fp8, LucidFlux likewise
- 24 GB: as it is"""
CONTROLNET = "Flux.1-dev-Controlnet-Upscaler"
DEBLURRING = "deblurring.safetensors"
KONTEXT_LORA = "restore_photo_v4.safetensors"


class PublicRestoration(Restoration):
    """What the graphs for FLUX.1-dev have in common."""

    def to_a_megapixel(self, megapixels=1.0):
        self.image = self.add(
            "ImageScaleToTotalPixels",
            f"To {megapixels:g} megapixel",
            image=self.image,
            upscale_method="lanczos",
            megapixels=megapixels,
            resolution_steps=16,
        )[0]

    def enlarge(self, scale):
        self.image = self.add("ImageScaleBy", "Enlarge", image=self.image, upscale_method="lanczos", scale_by=scale)[0]

    def flux(self):
        """FLUX.1-dev without its text encoders."""
        self.group("2 Models")
        self.model = self.add("UNETLoader", models=[FLUX_FP8], unet_name=FLUX_FP8["name"], weight_dtype="default")
        self.vae = self.add("VAELoader", models=[FLUX_VAE], vae_name=FLUX_VAE["name"])

    def lucidflux_files(self):
        self.flux()
        self.lucidflux = self.add("FluxIRLoadLucidFlux", lucidflux_name="lucidflux.pth")
        self.remover = self.add("UpscaleModelLoader", "Load degradation remover", model_name="general_swinir_v1.ckpt")
        self.vision = self.add("CLIPVisionLoader", clip_name="siglip2-so400m-patch16-512.safetensors")

    def lucid(self, tiles=False):
        """LucidFlux on the model, its prompt and its steps."""
        self.encode()
        self.cleaned = self.add("ImageUpscaleWithModel", "Clean the photo", upscale_model=self.remover, image=self.image)
        self.prompt = self.add("FluxIRLoadStoredPrompt", prompt_name="prompt_embeddings.pt", guidance=4.0)
        self.restorer = self.add(
            "FluxIRApplyLucidFlux",
            model=self.model,
            lucidflux=self.lucidflux,
            degraded=self.image,
            cleaned=self.cleaned,
            clip_vision=self.vision,
        )
        if tiles:
            self.restorer = self.add("FluxIRTileModel", model=self.restorer)
        self.column()
        self.sigmas = self.add("FluxIRLucidFluxSigmas", latent=self.latent[1], steps=20)

    def custom(self, model, positive, sigmas, latent, noise=None):
        """SamplerCustomAdvanced with everything it needs but its sigmas."""
        return self.add(
            "SamplerCustomAdvanced",
            noise=noise or self.add("RandomNoise", noise_seed=0),
            guider=self.add("BasicGuider", model=model, conditioning=positive),
            sampler=self.add("KSamplerSelect", sampler_name="euler"),
            sigmas=sigmas,
            latent_image=latent,
        )

    def prompted(self, text, guidance):
        written = self.add("CLIPTextEncode", "Prompt", text=text, clip=self.clip)
        return self.add("FluxGuidance", conditioning=written, guidance=guidance)

    def matched(self, samples, reference):
        return self.add("FluxIRMatchColor", image=self.decode(samples), reference=reference, method="wavelet", strength=1.0)


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
    g.column()
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

- *controlnet*: `diffusion_pytorch_model.safetensors` of [jasperai/{CONTROLNET}]({HUB}/jasperai/{CONTROLNET}), renamed to \
`{CONTROLNET}.safetensors`

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
    g.column()
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

- *loras*: `experimental/{DEBLURRING}` of [Yuanshi/OminiControl]({HUB}/Yuanshi/OminiControl)

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
    g.column()
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

- *loras/{ONE_STEP}*: the folders `flux_adapter` and `vae_encoder_adapter` of OMGSR-F-1024, which \
[its page](https://github.com/wuer5/OMGSR) links

It was made for the sigmas `0.5051, 0`, guidance 1, no prompt, and tiles of 1024 that overlap by half.

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
    g.column()
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
    g.column()
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
    g.column()
    sigmas = g.add("Flux2Scheduler", steps=4, width=size[0], height=size[1])
    samples = g.custom(model, shown, sigmas, g.latent[1])
    g.group("4 Result")
    image = g.add("FluxIRAlignToInput", restored=g.decode(samples), degraded=g.image, correct_scale=True)
    g.show(image, "klein")
    return g


PUBLIC = {
    "15 FLUX dev - LucidFlux restores a photo": lucidflux,
    "16 FLUX dev - LucidFlux, large photo and search": lucidflux_large,
    "17 FLUX dev - LucidFlux, a part such as a face": lucidflux_part,
    "18 FLUX dev - enlarge with a ControlNet": controlnet_once,
    "19 FLUX dev - enlarge with a ControlNet and search": controlnet_search,
    "20 FLUX dev - deblur and search": deblur,
    "21 FLUX dev - enlarge in one step": one_step,
    "22 FLUX Kontext - restore an old photo": kontext_lora,
    "23 FLUX klein - edit a large photo": klein,
}
"""By the name that the template browser shows, in its order, behind GRAPHS."""
