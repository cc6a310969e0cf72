"""Nodes for few-step students: the sigmas that a file was distilled for, and the noised latent it begins with."""

import logging
import os

import comfy.model_sampling
import folder_paths
import torch
from comfy_api.latest import io

from ..fluxir_core.lora.few_steps import read_schedules
from .degraded_latent import in_model_space
from .folders import ADAPTERS
from .runtime import nodes_of_run, speaker, speaking_for

SIGMAS_NODE = "Distilled Sigmas"
START_NODE = "Noisy Start Latent"
FOLDERS = ("loras", ADAPTERS)


def _path(file_name):
    """Where `file_name` is, or None."""
    return next(filter(None, (folder_paths.get_full_path(key, file_name) for key in FOLDERS)), None)


class DistilledSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRDistilledSigmas",
            display_name=SIGMAS_NODE,
            category="FluxIR/few steps",
            description="The few large steps that a few-step LoRA or an adapter is made for, read from its file.",
            search_aliases=["flux-ir", "few steps", "4 steps", "fast", "schedule", "scheduler", "turbo", "lightning"],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=[name for key in FOLDERS for name in folder_paths.get_filename_list(key)],
                    tooltip="A few-step LoRA in models/loras, or an adapter in models/fluxir_adapters: the one that the model is "
                    "sampled with.",
                ),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many model calls. A file has sigmas for some numbers, usually 1, 2 and 4.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    display_name="sigmas",
                    tooltip="For SamplerCustomAdvanced with the sampler euler, and for TTS Sampler (test-time search). They start "
                    "below 1: connect the degraded latent as latent_image.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, file_name, steps):
        path = _path(file_name)  # `fluxir schedule` writes into the file
        return path and os.path.getmtime(path)

    @classmethod
    def execute(cls, file_name, steps) -> io.NodeOutput:
        path = _path(file_name)
        if path is None:
            raise ValueError(f"{SIGMAS_NODE}: there is no {file_name} in {' or '.join(FOLDERS)}; choose another file.")
        with speaking_for(SIGMAS_NODE):
            schedules = read_schedules(path)
        if steps not in schedules:
            if not schedules:
                raise ValueError(
                    f"{SIGMAS_NODE}: {file_name} states no schedule; choose a few-step LoRA, or run `fluxir schedule` on the model."
                )
            known = ", ".join(map(str, schedules))
            raise ValueError(f"{SIGMAS_NODE}: {file_name} has no schedule for {steps} steps; it has those for {known}.")
        if schedules[steps][0] < 1 and _starts_empty(nodes_of_run(cls), cls):
            say = "An empty latent goes into latent_image: connect the degraded photo's latent there, because these sigmas start from it."
            speaker(cls, logging.WARNING)(say)
        return io.NodeOutput(torch.tensor(schedules[steps]))


def _starts_empty(nodes, own):
    """Whether a sampler of the graph that runs has these sigmas and an empty latent."""
    for _kind, inputs in nodes.values():
        sigmas, latent = inputs.get("sigmas"), inputs.get("latent_image")
        if isinstance(sigmas, list) and isinstance(latent, list) and str(sigmas[0]) == str(own.hidden.unique_id):
            kind = nodes.get(str(latent[0]), ("", {}))[0]
            if kind.startswith("Empty") or (kind == "FluxIREncodePhoto" and latent[1] == 1):
                return True
    return False


class NoisyStartLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRNoisyStartLatent",
            display_name=START_NODE,
            category="FluxIR/few steps",
            description="The degraded latent with the noise of the first sigma, where few-step sampling starts. For samplers "
            "that add no noise; SamplerCustomAdvanced with RandomNoise does this by itself.",
            search_aliases=["flux-ir", "noised latent", "add noise", "few steps", "img2img"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will sample. It knows how its latents are scaled and noised."),
                io.Noise.Input(
                    "noise",
                    optional=True,
                    tooltip="From RandomNoise. Its seed decides the start. Leave it out for one-step restorers such as OMGSR, which "
                    "start at the degraded latent itself.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="From Distilled Sigmas, or ManualSigmas. The first one says how much noise; it must be below 1.",
                ),
                io.Latent.Input("degraded", tooltip="The degraded image from VAE Encode."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="For SamplerCustomAdvanced with DisableNoise and the same sigmas."),
            ],
        )

    @classmethod
    def execute(cls, model, sigmas, degraded, noise=None) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        if not isinstance(sampling, comfy.model_sampling.CONST):
            raise ValueError(
                f"{START_NODE}: the model is of another kind than flow matching; use a flow-matching model such as FLUX."
            )
        if len(sigmas) == 0 or not 0 < sigmas[0] < 1:
            first = f"begin at {sigmas[0]:.3g}" if len(sigmas) else "are empty"
            raise ValueError(
                f"{START_NODE}: the sigmas {first}, where nothing of the degraded image is left to see; use Distilled Sigmas, or a "
                "denoise below 1."
            )
        clean = in_model_space(model, degraded, START_NODE)
        start = clean
        if noise is not None:
            start = sampling.noise_scaling(sigmas[0], noise.generate_noise(degraded).to(clean), clean)
        # Between two samplers core keeps a flow's state divided by 1 - sigma: the next one multiplies it again.
        unscaled = sampling.inverse_noise_scaling(sigmas[0], start)
        return io.NodeOutput({**degraded, "samples": model.model.process_latent_out(unscaled)})
