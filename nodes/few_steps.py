"""Nodes for few-step students: the schedule that a file was distilled for, and the noised latent it begins with."""

import os

import comfy.model_sampling
import folder_paths
import torch
from comfy_api.latest import io

from ..fluxir_core.flux.weight_files import WeightFileError
from ..fluxir_core.lora.few_steps import read_schedules
from .degraded_latent import in_model_space
from .folders import ADAPTERS

SIGMAS_NODE = "Distilled Sigmas"
START_NODE = "LQ Start Latent"
FOLDERS = ("loras", ADAPTERS)


def _path(file_name):
    """Where `file_name` is, or None."""
    return next(filter(None, (folder_paths.get_full_path(key, file_name) for key in FOLDERS)), None)


class DistilledSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DistilledSigmas",
            display_name=SIGMAS_NODE,
            category="FluxIR/few steps",
            description="The schedule of a few large steps that a few-step LoRA, or an adapter, states in its file.",
            search_aliases=["flux-ir", "few steps", "fast", "distilled", "schedule", "scheduler", "turbo", "lightning"],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=[name for key in FOLDERS for name in folder_paths.get_filename_list(key)],
                    tooltip="A few-step LoRA of models/loras, or an adapter of models/fluxir_adapters: "
                    "the one that the model is sampled with.",
                ),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Model calls. The file has schedules for some numbers, as a rule 1, 2 and 4.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    display_name="sigmas",
                    tooltip="For SamplerCustomAdvanced with the sampler euler, and for TTS "
                    "Sampler. They begin below 1: give the degraded latent as latent_image.",
                ),
            ],
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
        try:
            schedules = read_schedules(path)
        except WeightFileError as error:
            raise WeightFileError(f"{SIGMAS_NODE}: {error}") from None
        if steps not in schedules:
            if not schedules:
                raise ValueError(
                    f"{SIGMAS_NODE}: {file_name} states no schedule; choose a few-step LoRA, or run `fluxir schedule` on the model."
                )
            known = ", ".join(map(str, schedules))
            raise ValueError(f"{SIGMAS_NODE}: {file_name} has no schedule for {steps} steps; it has those for {known}.")
        return io.NodeOutput(torch.tensor(schedules[steps]))


class LQStartLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LQStartLatent",
            display_name=START_NODE,
            category="FluxIR/few steps",
            description="The degraded latent under the noise of the first sigma, where few-step students begin, for samplers "
            "that add none. SamplerCustomAdvanced with Random Noise does the same by itself.",
            search_aliases=["flux-ir", "noised latent", "add noise", "start latent", "few steps", "img2img"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will sample: it knows how its latents are scaled and noised."),
                io.Noise.Input("noise", tooltip="From Random Noise; its seed decides the start."),
                io.Sigmas.Input("sigmas", tooltip="From Distilled Sigmas: the first says how much noise. It must be below 1."),
                io.Latent.Input("degraded", tooltip="The degraded picture from VAE Encode."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="For SamplerCustomAdvanced with Disable Noise, same sigmas."),
            ],
        )

    @classmethod
    def execute(cls, model, noise, sigmas, degraded) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        if not isinstance(sampling, comfy.model_sampling.CONST):
            raise ValueError(
                f"{START_NODE}: the model is of another kind than flow matching; use a flow-matching model such as FLUX."
            )
        if len(sigmas) == 0 or not 0 < sigmas[0] < 1:
            first = f"begin at {sigmas[0]:.3g}" if len(sigmas) else "are empty"
            raise ValueError(
                f"{START_NODE}: the sigmas {first}, where no degraded picture is left to see; use Distilled Sigmas, or a "
                "denoise below 1."
            )
        clean = in_model_space(model, degraded, START_NODE)
        start = sampling.noise_scaling(sigmas[0], noise.generate_noise(degraded).to(clean), clean)
        # Between two samplers core keeps a flow's state divided by 1 - sigma: the next one multiplies it again.
        unscaled = sampling.inverse_noise_scaling(sigmas[0], start)
        return io.NodeOutput({**degraded, "samples": model.model.process_latent_out(unscaled)})
