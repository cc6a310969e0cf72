"""What the graphs for restorers of other authors have in common."""

from .graph_files import FLUX_FP8, FLUX_VAE
from .restoration import Restoration

PRESS_R = "ComfyUI offers FLUX for download. These files you fetch yourself into ComfyUI's *models* folder; then press R:"
GGUF = "a Q4 GGUF of FLUX, with **Unet Loader (GGUF)** of the ComfyUI-GGUF pack for **Load Diffusion Model**"
NOT_TRIED = "We had no card to try this graph with the real files."


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
