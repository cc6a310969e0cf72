"""What most graphs have in common: a photo, the models, and the result beside the photo."""

from .graph import Graph, Node
from .graph_files import CLIP_L, FLUX_VAE

MODEL, ADAPTER, VAE = "mini-flux.safetensors", "mini-flux-fluxir.safetensors", "mini-flux-vae.safetensors"
UMMF, FEW_STEPS = "mini-flux-ummf.safetensors", "mini-flux-few-steps.safetensors"
OWN_PHOTO = "Choose your own in **Load Image**: any size will do. "
STAND_IN = "The small model that comes with the pack is a trial: good at noise, JPEG and darkness, poor at faces and small text."


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
        self.add("FluxIRBeforeAndAfter", before=before or self.image, after=image, view=view)
        self.add("SaveImage", "Save the restored photo", images=image, filename_prefix=f"fluxir/{prefix}")

    def searcher(self, steps, model, positive, preset="quick", verifier=None, search=None, noise=None, latent=1):
        """TTS Sampler with everything it needs; `steps` are BasicScheduler's settings, or a node that gives sigmas."""
        self.guider = self.add("BasicGuider", model=model, conditioning=positive)
        self.noise = noise or self.add("RandomNoise", noise_seed=0)
        scheduled = isinstance(steps, dict)
        self.sigmas = self.add("BasicScheduler", model=model, scheduler="simple", **steps) if scheduled else steps
        self.verifier = verifier or self.add("FluxIRNaturalImageVerifier")
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
        inputs = {"final_candidates": self.decode(self.search[1], "Decode the final candidates")} if candidates else {}
        chart = self.add("FluxIRSearchReportChart", report=self.search[2], **inputs)
        self.add("PreviewImage", "The search", images=chart)
