"""The graphs for FLUX with nothing of other authors: one function each."""

from .graph_files import FLUX_DEV, KONTEXT, REMOVER, T5, T5_FP8
from .restoration import OWN_PHOTO, Restoration


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
    g.encode()
    text = g.add("CLIPTextEncode", "Prompt", text=checked[1], clip=g.clip)
    guided = g.add("FluxGuidance", conditioning=text, guidance=3.5)
    shown = g.add("FluxIRUMMFConditioning", conditioning=guided, degraded=g.latent, strength=1.0)
    model = g.add("FluxIRTileModel", model=lora)
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
    g.searcher({"steps": 25, "denoise": 0.5}, g.model, guided, latent=0)
    g.add("FluxIRBudgetPlan", sigmas=g.sigmas, preset="quick")
    g.group("4 Result")
    image = g.decode(g.search)
    g.show(image, "any_model")
    return g
