"""What the shipped graphs are: one function each."""

from functools import partial

from .graph import Graph, Node

MODEL, ADAPTER, VAE = "mini-flux.safetensors", "mini-flux-fluxir.safetensors", "mini-flux-vae.safetensors"
UMMF, FEW_STEPS = "mini-flux-ummf.safetensors", "mini-flux-few-steps.safetensors"
OWN_PHOTO = "Choose your own in **Load Image**: any size will do. "
STAND_IN = "The small model that comes with the pack is a trial: good at noise, JPEG and darkness, poor at faces and small text."
HUB = "https://huggingface.co"


def hub_file(directory, repository, path, digest=None):
    """A file that the frontend offers to download; `digest` is its SHA-256, where a public page states it."""
    return {
        "name": path.rsplit("/", 1)[-1],
        "url": f"{HUB}/{repository}/resolve/main/{path}",
        **({"hash": digest, "hash_type": "SHA256"} if digest else {}),
        "directory": directory,
    }


FLUX_VAE = hub_file(
    "vae",
    "Comfy-Org/Lumina_Image_2.0_Repackaged",
    "split_files/vae/ae.safetensors",
    "afc8e28272cd15db3919bacdb6918ce9c1ed22e96cb12c4d5ed0fba823529e38",
)
FLUX_DEV = hub_file(
    "diffusion_models",
    "Comfy-Org/flux1-dev",
    "flux1-dev.safetensors",
    "4610115bb0c89560703c892c59ac2742fa821e60ef5871b33493ba544683abd7",
)
KONTEXT = hub_file(
    "diffusion_models",
    "Comfy-Org/flux1-kontext-dev_ComfyUI",
    "split_files/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors",
    "630ba795ec64283b4230ea23cf79406c2c68b7c578229ed139f30043eadb30a2",
)
CLIP_L = hub_file(
    "text_encoders",
    "comfyanonymous/flux_text_encoders",
    "clip_l.safetensors",
    "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd",
)
T5 = hub_file(
    "text_encoders",
    "comfyanonymous/flux_text_encoders",
    "t5xxl_fp16.safetensors",
    "6e480b09fae049a72d2a8c5fbccb8d3e92febeb233bbe9dfe7256958a9167635",
)
T5_FP8 = hub_file(
    "text_encoders",
    "comfyanonymous/flux_text_encoders",
    "t5xxl_fp8_e4m3fn_scaled.safetensors",
    "a498f0485dc9536735258018417c3fd7758dc3bccc0a645feaa472b34955557a",
)
REMOVER = hub_file(
    "upscale_models",
    "Comfy-Org/Real-ESRGAN_repackaged",
    "RealESRGAN_x4plus.safetensors",
    "37f9a931c215f040aa6d50f711f2cb115f713c46df1d0d6469a8bd7bfe9a60bb",
)


class Restoration(Graph):
    """What most graphs have in common: a photo, the small model with its adapter, and the result beside the photo."""

    prompt: Node
    mask: tuple | None

    def photo_of(self, file, title="Load your photo"):
        self.group("1 Photo")
        self.photo = self.add("LoadImage", title, image=file)
        self.image, self.mask = self.photo[0], self.photo[1]

    def models_of(self, adapter_title=None):
        self.group("2 Models")
        self.model = self.add("UNETLoader", unet_name=MODEL, weight_dtype="default")
        self.vae = self.add("VAELoader", vae_name=VAE)
        self.adapter = self.add("FluxIRLoadAdapter", adapter_title, adapter_name=ADAPTER)

    def flux_models_of(self, model, t5):
        self.group("2 Models")
        self.model = self.add("UNETLoader", models=[model], unet_name=model["name"], weight_dtype="default")
        self.clip = self.add(
            "DualCLIPLoader", models=[CLIP_L, t5], clip_name1=CLIP_L["name"], clip_name2=t5["name"], type="flux", device="default"
        )
        self.vae = self.add("VAELoader", models=[FLUX_VAE], vae_name=FLUX_VAE["name"])

    def encode(self):
        self.latent = self.add("FluxIREncodePhoto", photo=self.image, vae=self.vae)

    def adapt(self, model=None, tiles=True, title=None):
        """The model with its adapter, in tiles where the photo is large, and the empty prompt."""
        restorer = self.add("FluxIRApplyAdapter", title, model=model or self.model, adapter=self.adapter, degraded=self.latent)
        if tiles:
            restorer = self.add("FluxIRTileModel", model=restorer)
        return restorer

    def sample(self, model, **settings):
        return self.add(
            "KSampler",
            **{"steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"} | settings,
            model=model,
            positive=self.prompt,
            negative=self.prompt,
            latent_image=self.latent[1],
        )

    def decode(self, samples, title=None):
        return self.add("FluxIRDecodePhoto", title, samples=samples, vae=self.vae, photo=self.image, mask=self.mask)

    def show(self, image, prefix, before=None, view="side by side"):
        self.column()
        self.add("FluxIRBeforeAndAfter", before=before or self.image, after=image, view=view)
        self.add("SaveImage", "Save the restored photo", images=image, filename_prefix=f"fluxir/{prefix}")

    def searcher(self, steps, model, positive, preset="quick", verifier=None, search=None, noise=None, latent=1):
        """TTS Sampler with everything it needs; `steps` are BasicScheduler's settings, or a node that gives sigmas."""
        self.guider = self.add("BasicGuider", model=model, conditioning=positive)
        self.noise = noise or self.add("RandomNoise", noise_seed=0)
        scheduled = isinstance(steps, dict)
        self.sigmas = self.add("BasicScheduler", model=model, scheduler="simple", **steps) if scheduled else steps
        self.verifier = verifier or self.add("FluxIRNaturalImageVerifier")
        self.column()
        inputs = {"search": search} if search else {"preset": preset}
        self.search = self.add(
            "FluxIRTTSSampler",
            noise=self.noise,
            guider=self.guider,
            sigmas=self.sigmas,
            latent_image=self.latent[latent],
            vae=self.vae,
            verifier=self.verifier,
            degraded=self.image,
            **inputs,
        )
        return self.search

    def drawn(self, candidates=True):
        """The chart of the search, with its final candidates below."""
        self.column()
        inputs = {"final_candidates": self.decode(self.search[1], "Decode the final candidates")} if candidates else {}
        chart = self.add("FluxIRSearchReportChart", report=self.search[2], **inputs)
        self.add("PreviewImage", "The search", images=chart)


def restore(library):
    g = Restoration(
        library,
        f"## Restore a photo\n\nPress Run. {OWN_PHOTO}\n\nMore or less? Change *strength* in **Apply FluxIR Adapter**. "
        f"Another *seed* gives another plausible result.\n\n{STAND_IN} What the photo has lost is invented, not recovered.",
    )
    g.photo_of("fluxir_dogs_noisy.jpg")
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    samples = g.sample(model)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "restored")
    return g


def fidelity(library):
    g = Restoration(
        library,
        f"## How far may it change?\n\nPress Run. {OWN_PHOTO}\n\n**Invented Detail** marks what your photo gives no evidence for: "
        "red some, yellow most, white all. Too much of it in a face? Raise *fidelity* in **Restoration Fidelity**. Too much "
        "noise left? Lower it.\n\n**Give Back Detail** returns fine detail of your photo that the VAE loses.",
    )
    g.photo_of("fluxir_brushes_jpeg.jpg")
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    model = g.add("FluxIRRestorationFidelity", model=model, degraded=g.latent, fidelity=0.5)
    samples = g.sample(model)
    g.group("4 Result")
    image = g.add("FluxIRGiveBackDetail", restored=g.decode(samples), degraded=g.image, vae=g.vae, strength=0.5)
    detail = g.add("FluxIRInventedDetail", restored=image, degraded=g.image)
    g.add("PreviewImage", "Invented detail", images=detail)
    g.show(image, "faithful", view="close-up")
    return g


def few_steps(library):
    g = Restoration(
        library,
        f"## Restore in four steps\n\nPress Run. {OWN_PHOTO}\n\n**Load LoRA** makes the model fast; **Distilled Sigmas** knows the 1, "
        "2 or 4 steps it was made for. Keep the sampler at euler.\n\nThe slow model draws more texture, the fast one stays "
        "closer to the original.",
    )
    g.photo_of("fluxir_room_dark.jpg")
    g.models_of()
    student = g.add("LoraLoaderModelOnly", model=g.model, lora_name=FEW_STEPS, strength_model=1.0)
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt(student)
    g.column()
    guider = g.add("BasicGuider", model=model, conditioning=prompt)
    noise = g.add("RandomNoise", noise_seed=0)
    sampler = g.add("KSamplerSelect", sampler_name="euler")
    sigmas = g.add("FluxIRDistilledSigmas", file_name=FEW_STEPS, steps=4)
    g.column()
    samples = g.add("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=g.latent)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "few_steps")
    return g


def search(library):
    g = Restoration(
        library,
        f"## Search for the best result\n\nPress Run. {OWN_PHOTO}\n\n**TTS Sampler (test-time search)** tries variants and keeps what "
        "the verifier likes best. You never get something it likes less than the normal result.\n\n**Budget Plan** says what the "
        "search costs. To run it alone, press the play button above it.",
    )
    g.photo_of("fluxir_stream_damaged.jpg")
    g.models_of()
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    g.searcher({"steps": 20, "denoise": 1.0}, model, prompt)
    g.add(
        "FluxIRBudgetPlan",
        sigmas=g.sigmas,
        preset="quick",
        guider=g.guider,
        latent_image=g.latent[1],
        vae=g.vae,
        verifier=g.verifier,
    )
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "searched")
    g.drawn()
    return g


def large(library):
    g = Restoration(
        library,
        f"## Restore a large photo\n\nPress Run. {OWN_PHOTO}\n\nHere a small photo is made twice as large first; set *scale_by* to 1 "
        "for one that is large.\n\n**Tile Model** shows the model one tile at a time and says how many there are. Each takes as "
        "long as a small photo: 4000 x 3000 pixels are 20 tiles, a quarter of an hour or more on a CPU.",
    )
    g.photo_of("fluxir_mountain_small.jpg")
    g.image = g.add("ImageScaleBy", "Enlarge", image=g.photo, upscale_method="bicubic", scale_by=2.0)[0]
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    samples = g.sample(model, steps=8)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "large", view="close-up")
    return g


def evaluate(library):
    g = Restoration(
        library,
        "## Is it better, and by how much?\n\nPress Run. A good photo is damaged, restored and measured against itself.\n\n"
        "The two tables say how near the damaged and the restored photo are to the original; the arrow says which way is better. "
        "*Which looks best* ranks them without the original, as a search does.\n\nOne photo says little: try several.",
    )
    g.photo_of("fluxir_dandelion_original.jpg", "Load a good photo")
    good = g.image
    g.image = g.add("FluxIRDegradeImage", image=good, degradation="sensor noise", strength=1.0, seed=0)[0]
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    samples = g.sample(model)
    g.group("4 Result")
    restored = g.decode(samples)
    image = g.add("FluxIRMatchColor", image=restored, reference=g.image)
    g.column()
    g.add("FluxIREvaluateRestoration", "The damaged photo", restored=g.image, original=good)
    g.add("FluxIREvaluateRestoration", "The restored photo", restored=image, degraded=g.image, original=good)
    g.show(image, "evaluated")
    g.column()
    batch = g.add(
        "BatchImagesNode",
        "Damaged, restored, color-matched",
        **{"images.image0": g.image, "images.image1": restored, "images.image2": image},
    )
    verifier = g.add("FluxIRNaturalImageVerifier")
    scores = g.add("FluxIRScoreImages", images=batch, verifier=verifier, degraded=g.image)
    g.add("PreviewImage", "Which looks best", images=scores[3])
    return g


def ummf(library):
    g = Restoration(
        library,
        f"## Restore with UMMF\n\nPress Run. {OWN_PHOTO}\n\n**UMMF Conditioning** shows the model your photo beside the prompt (UMMF: "
        f"unified multi-modal fusion). **Apply UMMF LoRA** teaches it to read the photo.\n\n{STAND_IN}",
    )
    g.photo_of("fluxir_room_dark.jpg")
    g.models_of("Adapter, for its empty prompt")
    lora = g.add("FluxIRApplyUMMFLoRA", model=g.model, lora_name=UMMF, strength=1.0)
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    g.prompt = g.add("FluxIRUMMFConditioning", conditioning=prompt, degraded=g.latent, strength=1.0)
    model = g.add("FluxIRTileModel", model=lora)
    g.column()
    samples = g.sample(model)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "ummf")
    return g


def own_search(library, photo, prefix, note, make):
    """A search of the artist's own: `make(graph)` adds its node."""
    g = Restoration(
        library,
        f"{note}\n\nPress Run. {OWN_PHOTO}\n\nThe numbers are small, so that it is quick: more of each find better results.",
    )
    g.photo_of(photo)
    g.models_of()
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt()
    g.column()
    natural = g.add("FluxIRNaturalImageVerifier")
    clip = g.add(
        "FluxIRCLIPScoreVerifier",
        "CLIP-Score Verifier (muted)",
        mode=2,
        model="clip-vit-large-patch14",
        prompt="a sharp, detailed photo",
    )
    verifier = g.add("FluxIRVerifierEnsemble", **{"verifiers.verifier0": natural, "verifiers.verifier1": clip})
    algorithm = make(g, prompt)
    g.column()
    g.searcher({"steps": 8, "denoise": 1.0}, model, prompt, verifier=verifier, search=algorithm)
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, prefix)
    g.drawn()
    return g


def _stepwise(g, _prompt):
    return g.add("FluxIRStepwiseSearch", children=3, window=0.9)


def _evolutionary(g, prompt):
    student = g.add("LoraLoaderModelOnly", "The fast model", model=g.model, lora_name=FEW_STEPS, strength_model=1.0)
    fast = g.adapt(student, tiles=False, title="Apply FluxIR Adapter to it")
    guider = g.add("BasicGuider", "The fast model's guider", model=fast, conditioning=prompt)
    sigmas = g.add("FluxIRDistilledSigmas", file_name=FEW_STEPS, steps=2)
    g.column()
    return g.add(
        "FluxIREvolutionarySearch",
        children=2,
        rounds=2,
        look_ahead="large steps",
        look_ahead_steps=2,
        student=guider,
        student_sigmas=sigmas,
    )


def _particles(g, _prompt):
    return g.add("FluxIRParticleSearch", method="resampling", particles=4, rounds=2)


def pairs(library):
    g = Graph(
        library,
        "## Make pairs to train on\n\nPress Run. A plain FLUX draws images from noise; **Select Images (FluxGen)** drops the worst, "
        "**Degrade Image** damages the rest, and **Save Image Pairs (FluxGen)** writes both for training.\n\nThe small model draws "
        "nothing of use: this shows how it works. For FLUX.1-dev choose its model and VAE, and randomize both seeds.",
    )
    g.group("2 Models")
    model = g.add("UNETLoader", unet_name=MODEL, weight_dtype="default")
    vae = g.add("VAELoader", vae_name=VAE)
    adapter = g.add("FluxIRLoadAdapter", "For its empty prompt alone", adapter_name=ADAPTER)
    g.group("3 Settings")
    prompt = g.add("FluxIREmptyPrompt", adapter=adapter)
    latent = g.add("EmptySD3LatentImage", "Six images from noise", width=128, height=96, batch_size=6)
    samples = g.add(
        "KSampler",
        "Generate",
        model=model,
        steps=20,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        positive=prompt,
        negative=prompt,
        latent_image=latent,
    )
    g.column()
    images = g.add("VAEDecode", samples=samples, vae=vae)
    verifier = g.add("FluxIRNaturalImageVerifier")
    chosen = g.add("FluxIRSelectImages", images=images, verifier=verifier, keep=0.8)
    degraded = g.add("FluxIRDegradeImage", image=chosen, degradation="Real-ESRGAN", strength=1.0, seed=0)
    g.group("4 Result")
    g.add("FluxIRSaveImagePairs", good=chosen, degraded=degraded, filename_prefix="fluxgen/pairs", prompt="")
    g.add("FluxIRBeforeAndAfter", "Good and degraded", before=chosen, after=degraded)
    g.column()
    g.add("SaveImage", "Which were chosen, and why", images=chosen[2], filename_prefix="fluxgen/selection")
    return g


def kontext(library):
    g = Restoration(
        library,
        f"## FLUX.1 Kontext: restore by instruction\n\nFLUX.1 Kontext follows an instruction; **UMMF Conditioning** shows it your "
        f"photo, without a LoRA. {OWN_PHOTO}\n\nSay in *Instruction* what is wrong, and what must stay. It is best near one "
        "megapixel. Faces or letters changed? Raise *strength* a little above 1.",
    )
    g.photo_of("fluxir_brushes_jpeg.jpg")
    g.flux_models_of(KONTEXT, T5_FP8)
    g.group("3 Settings")
    g.encode()
    instruction = "restore this photo: remove noise, blur and compression artifacts, keep everything else"
    text = g.add("CLIPTextEncode", "Instruction", text=instruction, clip=g.clip)
    guided = g.add("FluxGuidance", conditioning=text, guidance=2.5)
    shown = g.add("FluxIRUMMFConditioning", conditioning=guided, degraded=g.latent, strength=1.0)
    g.column()
    g.searcher({"steps": 20, "denoise": 1.0}, g.model, shown)
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "kontext")
    g.drawn(candidates=False)
    return g


def ummf_flux(library):
    g = Restoration(
        library,
        f"## FLUX.1-dev: photo, caption and search\n\nThe graph of the paper ResFlow-Tuner. {OWN_PHOTO}\n\nIt needs a UMMF LoRA in "
        "*models/loras*, and the folder *Qwen2.5-VL-7B-Instruct* in *models/fluxir_captioners*: see the help of **Apply UMMF LoRA** "
        "and of **Caption Image (Qwen2.5-VL)**. To do without captions, write the prompt yourself.",
    )
    g.photo_of("fluxir_mountain_small.jpg")
    size = g.add("GetImageSize", image=g.image)
    g.flux_models_of(FLUX_DEV, T5)
    lora = g.add("FluxIRApplyUMMFLoRA", model=g.model, lora_name="flux1-dev-ummf.safetensors", strength=1.0)
    remover = g.add("UpscaleModelLoader", models=[REMOVER], model_name=REMOVER["name"])
    g.group("3 Settings")
    large = g.add("ImageUpscaleWithModel", "Degradation remover", upscale_model=remover, image=g.image)
    cleaned = g.add(
        "ImageScale",
        "Back to the photo's size",
        image=large,
        upscale_method="area",
        width=size[0],
        height=size[1],
        crop="disabled",
    )
    caption = g.add("FluxIRCaptionImage", image=cleaned, model="Qwen2.5-VL-7B-Instruct")
    checked = g.add("FluxIRDegradationCheck", degraded=g.image, cleaned=cleaned, caption=caption)
    g.column()
    g.encode()
    text = g.add("CLIPTextEncode", "Prompt", text=checked[1], clip=g.clip)
    guided = g.add("FluxGuidance", conditioning=text, guidance=3.5)
    shown = g.add("FluxIRUMMFConditioning", conditioning=guided, degraded=g.latent, strength=1.0)
    model = g.add("FluxIRTileModel", model=lora)
    g.column()
    g.searcher({"steps": 25, "denoise": 1.0}, model, shown)
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "ummf_search")
    g.drawn(candidates=False)
    return g


def any_model(library):
    g = Restoration(
        library,
        "## Better images from any flow-matching model\n\nNo adapter, no training: **TTS Sampler (test-time search)** searches "
        f"with the model you have. {OWN_PHOTO}\n\n*denoise* in **BasicScheduler** says how much may change: 0.3 keeps the photo, "
        "0.6 repaints it.",
    )
    g.photo_of("fluxir_dandelion_original.jpg")
    g.flux_models_of(FLUX_DEV, T5)
    g.group("3 Settings")
    g.encode()
    text = g.add("CLIPTextEncode", "Prompt", text="a sharp, detailed photo", clip=g.clip)
    guided = g.add("FluxGuidance", conditioning=text, guidance=3.5)
    g.column()
    g.searcher({"steps": 25, "denoise": 0.5}, g.model, guided, latent=0)
    g.add("FluxIRBudgetPlan", sigmas=g.sigmas, preset="quick")
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "any_model")
    return g


GRAPHS = {
    "01 Restore a photo (works now)": restore,
    "02 Restore a photo and keep it faithful": fidelity,
    "03 Restore a photo in four steps": few_steps,
    "04 Search for the best result": search,
    "05 Large photo in tiles": large,
    "06 Measure a restoration": evaluate,
    "07 Restore a photo with UMMF": ummf,
    "08 Search of your own - step by step": partial(
        own_search,
        photo="fluxir_dogs_noisy.jpg",
        prefix="stepwise",
        note="## Step by step\n\n**Stepwise Search** tries a few noisy variants of every step and goes on with the best.",
        make=_stepwise,
    ),
    "09 Search of your own - evolution": partial(
        own_search,
        photo="fluxir_brushes_jpeg.jpg",
        prefix="evolution",
        note="## Evolution\n\n**Evolutionary Search** lets variants compete at some steps, judged by how they would end. A fast model "
        "shows that in two large steps; without it the slow model looks ahead itself.",
        make=_evolutionary,
    ),
    "10 Search of your own - particles": partial(
        own_search,
        photo="fluxir_stream_damaged.jpg",
        prefix="particles",
        note="## Particles\n\n**Particle Search** samples many images at once and copies the promising ones.",
        make=_particles,
    ),
    "11 Make pairs to train on": pairs,
    "12 FLUX Kontext - restore by instruction": kontext,
    "13 FLUX dev - photo, caption and search": ummf_flux,
    "14 FLUX dev - better images by search": any_model,
}
"""By the name that the template browser shows, in its order. Those with FLUX in it need downloads."""


def _blueprint(library, note, aliases):
    g = Restoration(library, note, aliases)
    g.image, g.mask = g.end("photo", "IMAGE"), g.end("mask", "MASK", "mask (optional)")
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    restorer = g.add("FluxIRApplyAdapter", model=g.model, adapter=g.adapter, degraded=g.latent)
    tiled = g.add("FluxIRTileModel", model=restorer)
    model = g.add("FluxIRRestorationFidelity", model=tiled, degraded=g.latent, fidelity=0.0)
    g.column()
    g.promote(restorer, "strength")
    g.promote(model, "fidelity")
    return g, model


def restore_photo(library):
    g, model = _blueprint(
        library,
        "Restores a photo of any size with the small model that comes with the pack. For FLUX.1-dev open it and choose its files.",
        ["restore", "denoise", "repair", "enhance", "fluxir"],
    )
    samples = g.sample(model)
    g.promote(samples, "seed")
    g.group("4 Result")
    g.result("IMAGE", g.decode(samples))
    return g


def restore_photo_by_search(library):
    g, model = _blueprint(
        library,
        "Restores a photo of any size and searches for the best result. The budget says how long it may take: quick up to 3 times "
        "a normal result, balanced up to 5 times, thorough up to 15 times. chart draws the search.",
        ["restore", "best of n", "search", "better quality", "fluxir"],
    )
    g.searcher({"steps": 20, "denoise": 1.0}, model, g.prompt)
    g.promote(g.search, "preset", "budget")
    g.promote(g.noise, "noise_seed", "seed")
    g.group("4 Result")
    g.result("IMAGE", g.decode(g.search))
    candidates = g.decode(g.search[1], "Decode the final candidates")
    g.result("chart", g.add("FluxIRSearchReportChart", report=g.search[2], final_candidates=candidates))
    return g


BLUEPRINTS = {"Restore Photo": restore_photo, "Restore Photo (best of search)": restore_photo_by_search}
