"""Nodes that make a search of one's own."""

from typing import Any

from comfy_api.latest import io

from ..fluxir_core.flow.kernels import CPS, OU, FlowGRPO, Kernel, Relabel, Renoise, Rotate, ZeroDrift
from ..fluxir_core.searches.evolutionary import EvolutionarySearch
from ..fluxir_core.searches.look_ahead import FULL, Coarse, Native
from ..fluxir_core.searches.particles import SMC, Halving
from ..fluxir_core.searches.selectors import Argmax, PerLineage, Tournament
from ..fluxir_core.searches.stepwise import StepwiseSearch
from .runtime import in_name_of
from .student import student_look_ahead

SearchAlgorithm = io.Custom("FLUXIR_SEARCH")
CATEGORY = "FluxIR/search/algorithms"
NOISE = {
    "SDE step": OU,
    "approximate SDE step": FlowGRPO,
    "constant share": CPS,
    "extra noise": ZeroDrift,
    "corrected noise": Relabel,
    "replaced noise": Rotate,
    "one step back": Renoise,
}
"""The kernels, by the names that an artist chooses from."""
STEPS = [name for name, kernel in NOISE.items() if kernel.keeps_time]
SURVIVAL = {"best of all": Argmax, "child against parent": PerLineage, "tournament": Tournament}
LOOKS = ["to the end", "normal steps", "large steps"]


def make_kernel(name, strength) -> Kernel:
    """The kernel that NOISE calls `name`, with `strength` as its own parameter."""
    kernel = NOISE[name]
    if kernel is Renoise:
        return Renoise()
    if kernel is CPS and strength > 1:
        raise ValueError(f"strength is {strength:g}; {name} takes at most 1, which renews all of the noise.")
    parameter = {OU: "a", FlowGRPO: "a", CPS: "eta", ZeroDrift: "m", Relabel: "m", Rotate: "m"}[kernel]
    return kernel(**{parameter: strength})


def _noise_inputs(names, default, strength) -> Any:
    return [
        io.Combo.Input(
            "noise_method",
            options=names,
            default=default,
            tooltip="How variants are made: every method adds noise in its own way. The default is a good choice; the help "
            "page explains the others.",
        ),
        io.Float.Input(
            "strength",
            default=strength,
            min=0.0,
            max=2.0,
            step=0.01,
            tooltip="How much noise is added: 0 adds none, more makes variants differ more. constant share takes at most 1; "
            "one step back does not use it.",
        ),
    ]


def _baseline_check_input() -> Any:
    return io.Boolean.Input(
        "baseline_check",
        default=True,
        tooltip="Also finish the baseline, which is the normal result without a search, and return it if nothing better was found.",
    )


def _output() -> list[Any]:
    return [SearchAlgorithm.Output(display_name="search", tooltip="For TTS Sampler (test-time search) or Budget Plan.")]


def _spread(rounds, first, last):
    """`rounds` shares of the steps, evenly from `first` to `last`."""
    if first > last:
        raise ValueError(f"first round {first} is after the last {last}; lower the first.")
    return tuple(first + (last - first) * i / max(rounds - 1, 1) for i in range(rounds))


def _round_inputs(rounds=4, first=0.2, last=0.8) -> Any:
    return [
        io.Int.Input("rounds", default=rounds, min=0, max=50, tooltip="How many selection rounds there are while sampling."),
        io.Float.Input(
            "first_round",
            default=first,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="When the first round is: 0 at the start, 0.5 halfway through the steps.",
        ),
        io.Float.Input(
            "last_round",
            default=last,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="When the last round is: 0.5 halfway through the steps, 0.9 near the end.",
        ),
    ]


class EvolutionarySearchAlgorithm(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIREvolutionarySearch",
            display_name="Evolutionary Search",
            category=CATEGORY,
            description="At some steps, noisy variants compete with the images so far, and the best go on, as in the paper "
            "ResFlow-Tuner.",
            search_aliases=["test-time search", "tts", "evosearch", "mutation", "best of n", "fluxir"],
            inputs=[
                io.Int.Input(
                    "parents",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many images are carried along. With 0 rounds all of them are finished and the best is taken (best of N).",
                ),
                io.Int.Input("children", default=7, min=0, max=64, tooltip="How many new variants join each round."),
                *_round_inputs(),
                *_noise_inputs(list(NOISE), "corrected noise", 1.0),
                io.Combo.Input(
                    "look_ahead",
                    options=LOOKS,
                    default="large steps",
                    tooltip="What a round is judged on. to the end: the finished images. normal steps: an estimate after some of "
                    "the sampler's own steps. large steps: the end, reached in a few large steps.",
                ),
                io.Int.Input(
                    "look_ahead_steps", default=3, min=0, max=100, tooltip="How many steps look ahead. Not used with to the end."
                ),
                io.Combo.Input(
                    "survival",
                    options=list(SURVIVAL),
                    default="best of all",
                    tooltip="Who goes on. best of all: the best of everyone. child against parent: a child replaces its own parent "
                    "if it is better. tournament: as best of all, but a child comes from the better of two images drawn at random.",
                ),
                _baseline_check_input(),
                io.Guider.Input(
                    "student",
                    optional=True,
                    tooltip="A fast version of the model (student), for example with a few-step LoRA. It finishes the images to be "
                    "judged, in place of look_ahead. Needs student_sigmas.",
                ),
                io.Sigmas.Input("student_sigmas", optional=True, tooltip="The student's steps, from Distilled Sigmas."),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(
        cls,
        parents,
        children,
        rounds,
        first_round,
        last_round,
        noise_method,
        strength,
        look_ahead,
        look_ahead_steps,
        survival,
        baseline_check,
        student=None,
        student_sigmas=None,
    ) -> io.NodeOutput:
        try:
            looks = {
                "to the end": lambda: FULL,
                "normal steps": lambda: Native(look_ahead_steps),
                "large steps": lambda: Coarse(look_ahead_steps),
            }
            look = student_look_ahead(student, student_sigmas) or looks[look_ahead]()
            if survival == "child against parent" and children not in (0, parents):
                raise ValueError(f"{children} children for {parents} parents; here each parent has one child, so make them equal.")
            return io.NodeOutput(
                EvolutionarySearch(
                    parents,
                    children,
                    _spread(rounds, first_round, last_round),
                    make_kernel(noise_method, strength),
                    look,
                    SURVIVAL[survival](),
                    baseline_check=baseline_check,
                )
            )
        except ValueError as error:
            raise in_name_of("Evolutionary Search", error) from None


class StepwiseSearchAlgorithm(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRStepwiseSearch",
            display_name="Stepwise Search",
            category=CATEGORY,
            description="Tries several noisy variants of every step and goes on with the best, as the presets quick, balanced and "
            "thorough do.",
            search_aliases=["test-time search", "tts", "greedy", "beam", "fluxir"],
            inputs=[
                io.Int.Input("children", default=4, min=0, max=64, tooltip="How many variants of each step are tried."),
                io.Float.Input(
                    "window",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The sigma from which on variants are tried. 1: at every step. 0.5: once the layout of the image is "
                    "fixed.",
                ),
                *_noise_inputs(STEPS, "SDE step", 1.41),
                io.Boolean.Input(
                    "first_improvement",
                    default=False,
                    tooltip="Try variants one by one and take the first that is better.",
                ),
                _baseline_check_input(),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    advanced=True,
                    tooltip="0: every step has one winner for the whole image. Otherwise tiles of this many pixels have winners "
                    "of their own, for one more model call per step. Not with first_improvement.",
                ),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(cls, children, window, noise_method, strength, first_improvement, baseline_check, tile=0) -> io.NodeOutput:
        try:
            kernel = make_kernel(noise_method, strength)
            return io.NodeOutput(StepwiseSearch(children, window, kernel, first_improvement, baseline_check, tile))
        except ValueError as error:
            raise in_name_of("Stepwise Search", error) from None


class ParticleSearchAlgorithm(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRParticleSearch",
            display_name="Particle Search",
            category=CATEGORY,
            description="Samples many images at once. At each round the promising ones are copied, or the worse ones dropped.",
            search_aliases=["test-time search", "tts", "smc", "sequential monte carlo", "successive halving", "fluxir"],
            inputs=[
                io.Combo.Input(
                    "method",
                    options=["resampling", "halving"],
                    default="resampling",
                    tooltip="resampling: promising images replace others and go on with new noise (sequential Monte Carlo). "
                    "halving: only the better share goes on, without new noise.",
                ),
                io.Int.Input("particles", default=15, min=1, max=64, tooltip="How many images are sampled at the start."),
                *_round_inputs(),
                io.Float.Input(
                    "pressure",
                    default=3.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="For resampling: how strongly good images are preferred. Not used by halving.",
                ),
                io.Float.Input(
                    "keep",
                    default=0.5,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="For halving: the share that goes on at each round. Not used by resampling.",
                ),
                _baseline_check_input(),
            ],
            outputs=_output(),
        )

    @classmethod
    def execute(cls, method, particles, rounds, first_round, last_round, pressure, keep, baseline_check) -> io.NodeOutput:
        try:
            shares = _spread(rounds, first_round, last_round)
            if method == "resampling":
                return io.NodeOutput(SMC(particles, shares, strength=pressure, baseline_check=baseline_check))
            return io.NodeOutput(Halving(particles, shares, keep, baseline_check))
        except ValueError as error:
            raise in_name_of("Particle Search", error) from None
