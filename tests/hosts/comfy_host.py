"""A tiny FLUX and its adapter in the ComfyUI of this process, and random inputs for them."""

import torch

from .tiny import write_tiny

STEPS = 4


class Host:
    """Writes the tiny weights to `folder`, loads them as the nodes do, and samples them with core's Euler sampler."""

    def __init__(self, folder, **adapter_options):
        import comfy.sample
        import comfy.sd
        import folder_paths
        from comfyui_fluxir.nodes.adapter import ApplyFluxIRAdapter, LoadFluxIRAdapter
        from comfyui_fluxir.nodes.folders import ADAPTERS, register_model_folders

        register_model_folders()
        self.folder = folder
        self.paths = write_tiny(folder, **adapter_options)
        name = f"{folder.name}.safetensors"
        self.paths["fluxir_adapters"].rename(self.paths["fluxir_adapters"].with_name(name))
        folder_paths.add_model_folder_path(ADAPTERS, str(folder / "fluxir_adapters"))
        self.model = comfy.sd.load_diffusion_model(str(self.paths["diffusion_models"]))
        self.adapter = LoadFluxIRAdapter.execute(name).result[0]
        self._apply = ApplyFluxIRAdapter.execute
        self._sample = comfy.sample.sample

    def apply(self, model=None, lq=None, strength=1.0, start=0.0, end=1.0):
        lq = random_latent(1) if lq is None else lq
        return self._apply(model or self.model, self.adapter, {"samples": lq}, strength, start, end).result[0]

    def sample(self, model, noise=None, positive=None, negative=None, cfg=1.0, latent=None, steps=STEPS, **options):
        noise = random_latent(2) if noise is None else noise
        positive = positive or prompt(3)
        latent = torch.zeros_like(noise) if latent is None else latent
        with torch.inference_mode():
            return self._sample(
                model,
                noise,
                steps,
                cfg,
                "euler",
                "simple",
                positive,
                negative or positive,
                latent,
                disable_pbar=True,
                seed=0,
                **options,
            )

    def injection(self, model):
        return model.callbacks["on_cleanup"]["fluxir"][0].__self__


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_latent(seed, batch=1, height=8, width=8):
    return random(seed, batch, 16, height, width)


def prompt(seed, tokens=8, **options):
    return [[random(seed, 1, tokens, 64), {"pooled_output": random(seed + 50, 1, 32), "guidance": 4.0, **options}]]
