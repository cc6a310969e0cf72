"""The files that the graphs offer for download: where the frontend gets them, and into which folder of models they go."""

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


FLUX_FP8 = hub_file("diffusion_models", "Kijai/flux-fp8", "flux1-dev-fp8.safetensors")


KLEIN = hub_file("diffusion_models", "black-forest-labs/FLUX.2-klein-4b-fp8", "flux-2-klein-4b-fp8.safetensors")


KLEIN_TEXT = hub_file("text_encoders", "Comfy-Org/z_image_turbo", "split_files/text_encoders/qwen_3_4b.safetensors")


KLEIN_VAE = hub_file("vae", "Comfy-Org/flux2-dev", "split_files/vae/flux2-vae.safetensors")
