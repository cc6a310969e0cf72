"""Nodes that plan a search: schedules of one's own, and what a schedule costs before anything runs."""

import json
import time

import comfy.sample
import comfy.utils
import torch
from comfy.samplers import KSAMPLER
from comfy_api.latest import io

from ..fluxir_core.flow import PRESETS, check_sigmas, plan
from ..fluxir_core.flow.greedy import Greedy
from ..fluxir_core.flow.kernels import CPS, KERNELS, ODE, OU, FlowGRPO, Relabel, Renoise, Rotate, ZeroDrift
from ..fluxir_core.flow.lineages import Lineages
from ..fluxir_core.flow.particles import SMC, Halving
from ..fluxir_core.flow.paths import FULL, Coarse, Native
from ..fluxir_core.flow.selectors import Argmax, PerLineage, Tournament
from .inputs import checked_latent
from .student import student_look_ahead

Schedule = io.Custom("FLUXIR_SCHEDULE")
CATEGORY = "FluxIR/search/schedules"
MUTATIONS = [name for name in KERNELS if name != ODE.name]
STEPS = [name for name in MUTATIONS if KERNELS[name].keeps_time]
SURVIVAL = {"best of all": Argmax, "child against parent": PerLineage, "tournament": Tournament}
LOOKS = ("to the end", "native steps", "coarse steps")


def make_kernel(name, strength):
    """The kernel `name` with `strength` as its own parameter."""
    if name == Renoise.name:
        return Renoise()
    parameter = {OU: "a", FlowGRPO: "a", CPS: "eta", ZeroDrift: "m", Relabel: "m", Rotate: "m"}[KERNELS[name]]
    return KERNELS[name](**{parameter: strength})


def _kernel_inputs(names, default, strength):
    return [
        io.Combo.Input(
            "kernel",
            options=names,
            default=default,
            tooltip="How noise is added. ou: an exact SDE step. relabel: noise, "
            "with its time corrected. zero_drift: the paper's, which leaves the model's noise level. rotate, cps, "
            "flow_grpo, renoise: see the help page.",
        ),
        io.Float.Input(
            "strength",
            default=strength,
            min=0.0,
            max=2.0,
            step=0.01,
            tooltip="How much noise: ou's and flow_grpo's a, "
            "cps' eta, a factor on the noise elsewhere; renoise has no strength. 0 adds none.",
        ),
    ]


def _guard_input():
    return io.Boolean.Input(
        "guard", default=True, tooltip="Finish the plain sample too, and return it where nothing better was found."
    )


def _output():
    return [Schedule.Output(display_name="schedule", tooltip="For a TTS Sampler or Budget Plan.")]


def _spread(rounds, first, last):
    """`rounds` shares of the steps, evenly from `first` to `last`."""
    if first > last:
        raise ValueError(f"first round {first} is after the last {last}; lower the first.")
    return tuple(first + (last - first) * i / max(rounds - 1, 1) for i in range(rounds))


def _round_inputs(rounds=4, first=0.2, last=0.8):
    return [
        io.Int.Input("rounds", default=rounds, min=0, max=50, tooltip="Contests along the way."),
        io.Float.Input(
            "first_round",
            default=first,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="Where the first is, as a share of the steps.",
        ),
        io.Float.Input(
            "last_round", default=last, min=0.0, max=0.99, step=0.01, tooltip="Where the last is, as a share of the steps."
        ),
    ]


class ContestSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ContestSchedule",
            display_name="Contest Schedule",
            category=CATEGORY,
            description="Survivors and mutants compete at some steps, judged by looking ahead; the paper's kind of search.",
            search_aliases=["tts schedule", "mutation", "evolution", "best of n", "fluxir"],
            inputs=[
                io.Int.Input(
                    "lineages",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Pictures that are carried along; without rounds this is best of N.",
                ),
                io.Int.Input("children", default=7, min=0, max=64, tooltip="Mutants that join each contest."),
                *_round_inputs(),
                *_kernel_inputs(MUTATIONS, Relabel.name, 1.0),
                io.Combo.Input(
                    "look_ahead",
                    options=LOOKS,
                    default="coarse steps",
                    tooltip="What a contest is judged on: the "
                    "finished picture, an estimate after some of the sampler's steps, or after a few large ones.",
                ),
                io.Int.Input(
                    "look_ahead_steps", default=3, min=0, max=100, tooltip="Steps of the look-ahead; not used to the end."
                ),
                io.Combo.Input(
                    "survival",
                    options=list(SURVIVAL),
                    default="best of all",
                    tooltip="Who goes on: the best of everyone, "
                    "each lineage's better one, or the best after a tournament for parenthood.",
                ),
                _guard_input(),
                io.Guider.Input(
                    "student",
                    optional=True,
                    tooltip="A few-step student of the sampled model: it finishes the "
                    "candidates to be judged, in place of look_ahead. With student_sigmas.",
                ),
                io.Sigmas.Input("student_sigmas", optional=True, tooltip="The student's schedule, from Distilled Sigmas."),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(
        cls,
        lineages,
        children,
        rounds,
        first_round,
        last_round,
        kernel,
        strength,
        look_ahead,
        look_ahead_steps,
        survival,
        guard,
        student=None,
        student_sigmas=None,
    ) -> io.NodeOutput:
        try:
            looks = {
                "to the end": lambda: FULL,
                "native steps": lambda: Native(look_ahead_steps),
                "coarse steps": lambda: Coarse(look_ahead_steps),
            }
            look = student_look_ahead(student, student_sigmas) or looks[look_ahead]()
            if survival == "child against parent" and children not in (0, lineages):
                raise ValueError(
                    f"{children} children for {lineages} lineages; each lineage has one child there, so make them equal."
                )
            return io.NodeOutput(
                Lineages(
                    lineages,
                    children,
                    _spread(rounds, first_round, last_round),
                    make_kernel(kernel, strength),
                    look,
                    SURVIVAL[survival](),
                    guard=guard,
                )
            )
        except ValueError as error:
            raise ValueError(f"Contest Schedule: {error}") from None


class StepwiseSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseSchedule",
            display_name="Stepwise Schedule",
            category=CATEGORY,
            description="The best of several noisy children is taken at every step; the kind of search that fast and best are.",
            search_aliases=["tts schedule", "step-greedy", "beam", "fluxir"],
            inputs=[
                io.Int.Input("children", default=4, min=0, max=64, tooltip="Variants of each step."),
                io.Float.Input(
                    "window",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The sigma from which on there are "
                    "variants: 1 is every step, 0.5 those after the picture's layout is fixed.",
                ),
                *_kernel_inputs(STEPS, OU.name, 1.41),
                io.Boolean.Input(
                    "first_improvement",
                    default=False,
                    tooltip="Try variants one by one and take the first that is better; what a step saves, later steps may use.",
                ),
                _guard_input(),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    advanced=True,
                    tooltip="0: one winner a step for the whole picture. Otherwise tiles of this many pixels choose their "
                    "own winners, for one more model call a step with variants; not with first_improvement.",
                ),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(cls, children, window, kernel, strength, first_improvement, guard, tile=0) -> io.NodeOutput:
        try:
            return io.NodeOutput(Greedy(children, window, make_kernel(kernel, strength), first_improvement, guard, tile))
        except ValueError as error:
            raise ValueError(f"Stepwise Schedule: {error}") from None


class ParticleSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ParticleSchedule",
            display_name="Particle Schedule",
            category=CATEGORY,
            description="Many samples at once: SMC copies the promising ones at each round, halving drops the worse half.",
            search_aliases=["tts schedule", "smc", "sequential monte carlo", "successive halving", "fluxir"],
            inputs=[
                io.Combo.Input(
                    "method",
                    options=["smc", "halving"],
                    default="smc",
                    tooltip="smc: resample, then go on with noise. halving: keep the better share, without noise.",
                ),
                io.Int.Input("particles", default=15, min=1, max=64, tooltip="Samples at the start."),
                *_round_inputs(),
                io.Float.Input(
                    "pressure",
                    default=3.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="smc: how sharply good samples are preferred. Not used by halving.",
                ),
                io.Float.Input(
                    "keep", default=0.5, min=0.05, max=1.0, step=0.05, tooltip="halving: the share that goes on. Not used by smc."
                ),
                _guard_input(),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(cls, method, particles, rounds, first_round, last_round, pressure, keep, guard) -> io.NodeOutput:
        try:
            shares = _spread(rounds, first_round, last_round)
            if method == "smc":
                return io.NodeOutput(SMC(particles, shares, strength=pressure, guard=guard))
            return io.NodeOutput(Halving(particles, shares, keep, guard))
        except ValueError as error:
            raise ValueError(f"Particle Schedule: {error}") from None


class BudgetPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="BudgetPlan",
            display_name="Budget Plan",
            category="FluxIR/search",
            description="What a search will cost, before it runs: model calls, verifications, and seconds from one measured step.",
            search_aliases=["nfe", "cost", "estimate time", "tts", "fluxir"],
            is_output_node=True,
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The steps of the search."),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="fast", tooltip="The search; not used where a schedule is connected."
                ),
                Schedule.Input("schedule", optional=True, tooltip="A schedule of your own."),
                io.Guider.Input("guider", optional=True, tooltip="With latent_image: one step is run and timed."),
                io.Latent.Input("latent_image", optional=True, tooltip="With guider: the size to time."),
            ],
            outputs=[
                io.Int.Output(
                    display_name="nfe", tooltip="Model calls for each picture; the most, where the search may stop early."
                ),
                io.Float.Output(
                    display_name="seconds", tooltip="Of model calls, without decoding and verifying; 0 when nothing was timed."
                ),
                io.String.Output(display_name="report", tooltip="Both and the verifications, as JSON."),
            ],
        )

    @classmethod
    def execute(cls, sigmas, preset, schedule=None, guider=None, latent_image=None) -> io.NodeOutput:
        if (guider is None) != (latent_image is None):
            raise ValueError("Budget Plan: timing a step needs both guider and latent_image; connect both or neither.")
        check_sigmas(sigmas, "Budget Plan")
        report = {"preset": None if schedule else preset, **plan(schedule or PRESETS[preset], sigmas)}
        report["seconds"] = 0.0
        if guider is not None:
            report["step_seconds"] = _seconds_a_step(guider, latent_image, sigmas)
            report["seconds"] = round(report["step_seconds"] * report["nfe"], 2)
        text = json.dumps(report)
        return io.NodeOutput(report["nfe"], report["seconds"], text, ui={"text": [text]})


def _seconds_a_step(guider, latent, sigmas):
    """Seconds of one call of the guider's model at the size of `latent`, after one to warm up."""
    samples = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"], latent.get("downscale_ratio_spacial"))
    checked_latent("Budget Plan", "latent_image", samples, guider.model_patcher.get_model_object("latent_format"))
    found = []

    def two_calls(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for _ in range(2):
            started = time.perf_counter()
            float(model(x, sigmas[:1].expand(len(x)), **extra_args).sum())  # reading the sum waits for the device
            found.append(time.perf_counter() - started)
        return x

    guider.sample(torch.zeros_like(samples), samples, KSAMPLER(two_calls), sigmas[:2], disable_pbar=True, seed=0)
    return round(found[-1], 5)
