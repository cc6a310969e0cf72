"""An exponential moving average of weights that forgets its start."""

import torch


def averaged(model, decay):
    """A copy of `model` (call it as `.module`) that `update_parameters` moves towards it.

    The n-th update keeps min(decay, (1 + n) / (10 + n)) of the average, so that a short run is not held at its start.
    """

    @torch.no_grad()
    def update(average, current, updates):
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=update)
