"""The graphs for the small model that comes with the pack, without a search: one function each."""

from .graph import Graph
from .restoration import ADAPTER, FEW_STEPS, MODEL, OWN_PHOTO, STAND_IN, UMMF, VAE, Restoration


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
        f"## Restore in four steps\n\nPress Run. {OWN_PHOTO}\n\n**Load LoRA** lets the model do with few steps; **Distilled Sigmas** knows the 1, "
        "2 or 4 steps it was made for. Keep the sampler at euler.\n\nThe slow model draws more texture, the few-step one stays "
        "closer to the original.",
    )
    g.photo_of("fluxir_room_dark.jpg")
    g.models_of()
    student = g.add("LoraLoaderModelOnly", model=g.model, lora_name=FEW_STEPS, strength_model=1.0)
    g.group("3 Settings")
    g.encode()
    prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    model = g.adapt(student)
    guider = g.add("BasicGuider", model=model, conditioning=prompt)
    noise = g.add("RandomNoise", noise_seed=0)
    sampler = g.add("KSamplerSelect", sampler_name="euler")
    sigmas = g.add("FluxIRDistilledSigmas", file_name=FEW_STEPS, steps=4)
    samples = g.add("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=g.latent)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "few_steps")
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
    samples = g.sample(model)
    g.group("4 Result")
    restored = g.decode(samples)
    image = g.add("FluxIRMatchColor", image=restored, reference=g.image)
    g.add("FluxIREvaluateRestoration", "The damaged photo", restored=g.image, original=good)
    g.add("FluxIREvaluateRestoration", "The restored photo", restored=image, degraded=g.image, original=good)
    g.show(image, "evaluated")
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
    samples = g.sample(model)
    g.group("4 Result")
    image = g.decode(samples)
    g.show(image, "ummf")
    return g


def folder(library):
    g = Restoration(
        library,
        "## A folder of photos\n\nPut photos into a folder inside ComfyUI's *input* folder and name it in **Load Next Photos**; empty "
        "means the *input* folder itself. The results keep the photos' names and go to *output/restored*.\n\nEach Run restores the next "
        "*count* photos. Set the number beside Run as high as you like: when all are done, a run does nothing. Stop at any time; "
        "the next Run goes on where you stopped. A file that cannot be read is left out, and named on the node.\n\n" + STAND_IN,
    )
    g.group("1 Photo")
    g.photo = g.add("FluxIRLoadNextPhotos", folder="", results="restored", count=1)
    g.image, g.mask = g.photo[0], None
    g.models_of()
    g.group("3 Settings")
    g.encode()
    g.prompt = g.add("FluxIREmptyPrompt", adapter=g.adapter)
    samples = g.sample(g.adapt())
    g.group("4 Result")
    image = g.decode(samples)
    g.add("FluxIRBeforeAndAfter", before=g.image, after=image, view="side by side")
    g.add("FluxIRSavePhotoByName", image=image, name=g.photo[1], results="restored")
    return g


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
    images = g.add("VAEDecode", samples=samples, vae=vae)
    verifier = g.add("FluxIRNaturalImageVerifier")
    chosen = g.add("FluxIRSelectImages", images=images, verifier=verifier, keep=0.8)
    degraded = g.add("FluxIRDegradeImage", image=chosen, degradation="Real-ESRGAN", strength=1.0, seed=0)
    g.group("4 Result")
    g.add("FluxIRSaveImagePairs", good=chosen, degraded=degraded, filename_prefix="fluxgen/pairs", prompt="")
    g.add("FluxIRBeforeAndAfter", "Good and degraded", before=chosen, after=degraded)
    g.add("SaveImage", "Which were chosen, and why", images=chosen[2], filename_prefix="fluxgen/selection")
    return g
