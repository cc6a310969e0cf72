"""A few-step student that finishes the candidates of a search, run inside the sampling of the slow model."""

import copy

import comfy.model_management
import comfy.samplers
import torch

from ..fluxir_core.execution.micro_batches import MicroBatches
from ..fluxir_core.searches.look_ahead import Student

ROWS_AT_ONCE = 8


def student_look_ahead(guider, sigmas):
    """The Student of a GUIDER and its SIGMAS, or None without either. Raises ValueError when one is missing."""
    if (guider is None) != (sigmas is None):
        raise ValueError("a student needs both student and student_sigmas; connect both or neither.")
    return guider and Student(_Finisher(guider), tuple(float(sigma) for sigma in sigmas))


class _Finisher:
    """Samples rows of latents in the model's space to their end; it may share weights with the model being sampled.

    That model is displaced: the search brings it back, with its own patches, before its next call.
    """

    def __init__(self, guider):
        self.guider = guider

    def __call__(self, x, sigmas, batch):
        return MicroBatches(batch, max(1, ROWS_AT_ONCE // batch))(lambda rows: self._sample(rows, sigmas), x)

    def _sample(self, x, sigmas):
        guider, euler = copy.copy(self.guider), comfy.samplers.sampler_object("euler")
        noise = x / sigmas[0]  # on an empty latent core makes it x again, at pure noise too
        shared = guider.model_patcher.model
        patcher = shared.current_patcher
        try:
            found = guider.sample(
                noise, torch.zeros_like(x), euler, torch.tensor(sigmas), callback=_interrupted, disable_pbar=True, seed=0
            )
        finally:
            shared.current_patcher = patcher  # the end of a sampling takes it away
        return shared.process_latent_in(found).to(x)


def _interrupted(*_):
    """A sampler's callback after every step."""
    comfy.model_management.throw_exception_if_processing_interrupted()
