"""Running the TTS Sampler node, and core's Euler sampler beside it, on a tiny FLUX in the ComfyUI of this process."""

import json

import torch

from .comfy_host import prompt

STEPS = 6


class Calls:
    """A model whose calls are counted: rows, and times."""

    def __init__(self, model):
        self.model, self.rows = model.clone(), []
        self.model.set_model_unet_function_wrapper(self._count)

    def _count(self, function, arguments):
        self.rows.append(len(arguments["input"]))
        return function(arguments["input"], arguments["timestep"], **arguments["c"])


def guider(model, positive=None, negative=None, cfg=1.0):
    from comfy.samplers import CFGGuider

    made = CFGGuider(model)
    made.set_conds(positive or prompt(3), negative or positive or prompt(3))
    made.set_cfg(cfg)
    return made


def sigmas(steps=STEPS, start=1.0):
    return torch.linspace(start, 0, steps + 1)


def noise(seed=7):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    return Noise_RandomNoise(seed)


class Judge:
    """A verifier that likes bright images."""

    name = "bright"

    def __call__(self, images, reference=None):
        return images.mean((1, 2, 3)).float()


def verifier(*members):
    from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    return LoadedVerifier(Ensemble(members or (Judge(),)))


def run(
    host,
    vae,
    model=None,
    latent=None,
    steps=None,
    cfg=1.0,
    preset="quick",
    positive=None,
    negative=None,
    judge=None,
    **options,
):
    """(latent dict, finalists dict, report) of the TTS Sampler node."""
    from comfyui_fluxir.nodes.search import TTSSampler

    model = model or host.model
    latent = latent or {"samples": torch.zeros(1, 16, 8, 8)}
    steps = sigmas() if steps is None else steps
    with torch.inference_mode():
        out = TTSSampler.execute(
            noise(), guider(model, positive, negative, cfg), steps, latent, vae, judge or verifier(), preset, **options
        )
    best, finalists, report = out.result
    return best, finalists, json.loads(report)


def baseline(host, model=None, latent=None, steps=None, cfg=1.0, positive=None, negative=None):
    """SamplerCustomAdvanced with core's Euler sampler."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    model = model or host.model
    latent = latent or {"samples": torch.zeros(1, 16, 8, 8)}
    steps = sigmas() if steps is None else steps
    with torch.inference_mode():
        made = SamplerCustomAdvanced.execute(
            noise(), guider(model, positive, negative, cfg), comfy.samplers.sampler_object("euler"), steps, latent
        )
    return made.result[0]["samples"]
