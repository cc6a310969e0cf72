"""Sampling that is canceled, or fails, anywhere inside the pack: the MODEL is as before, and the next run gives what it always gave."""

import sys
from pathlib import Path

import comfyui_fluxir
import torch
from torch.overrides import TorchFunctionMode

from .harness import cases, repeatable
from .node_inputs import conditioning, noise, tensor
from .node_oracles import assert_named, copied, same, weights

PACK = str(Path(comfyui_fluxir.__file__).parent)
FEW = 6
"""Stops of which it can happen that all come too late."""
"""As the code of its modules names it: links are not followed."""


class Stop(TorchFunctionMode):
    """Raises `error`, once, at the first operation from number `at` on that the pack's own code asks for."""

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += 1
        if self.error is not None and self.count >= self.at and _asked_by_the_pack():
            error, self.error = self.error, None
            raise error
        return function(*args, **(kwargs or {}))


def _asked_by_the_pack():
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACK) and "/tests/" not in path and "/.cache/" not in path:
            return True
        frame = frame.f_back
    return False


def errors():
    from comfy.model_management import InterruptProcessingException

    return (
        InterruptProcessingException,
        InterruptProcessingException,
        lambda: torch.OutOfMemoryError("CUDA out of memory."),
        lambda: RuntimeError("a fault"),
    )


def sampling(draw, drawer):
    """(the models that are sampled, a function that samples): a drawn chain of the pack's nodes, by core's sampler or a search."""
    from comfy.samplers import CFGGuider, sampler_object
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    model = drawer.output(draw, "MODEL", 3) or drawer.model
    sampler = drawer.output(draw, "SAMPLER", 2) if draw.maybe(0.4) else None
    prompts, random, cfg = conditioning(draw), noise(draw), draw.choice((1.0, 3.0))
    latent, steps = {"samples": tensor(draw, 1, 16, 8, draw.choice((8, 8, 16)))}, torch.linspace(1, 0, draw.choice((2, 3)))

    def sampled():
        guider = CFGGuider(model)
        guider.set_conds(prompts, prompts)
        guider.set_cfg(cfg)
        chosen = sampler or sampler_object("euler")
        with torch.inference_mode():
            return SamplerCustomAdvanced.execute(random, guider, chosen, steps, latent).result[0]["samples"].clone()

    return (drawer.model, model), sampled


def test_the_next_run_is_the_same_behind_a_stop_at_any_moment(drawer):
    whole, stopped, tried = weights(drawer.model), 0, 0
    for draw in cases("stopped-sampling", 8):
        with repeatable(draw):
            models, sampled = sampling(draw, drawer)
            kept = copied(models)
            try:
                with Stop(0, None) as counted:
                    expected = sampled()
            except Exception:  # these inputs are for tests/fuzz/test_nodes.py
                continue
            for _ in range(2):
                stop = Stop(draw.randrange(counted.count), draw.choice(errors())())
                error = stop.error
                try:
                    with stop:
                        found = sampled()
                    assert found.isfinite().all()  # it came too late, or the pack went on without what it had no memory for
                except ValueError as sentence:
                    assert_named(sentence, drawer)
                except (RuntimeError, type(error)) as raised:
                    assert raised is error, raised
                stopped, tried = stopped + (stop.error is None), tried + 1
                assert same(copied(models), kept), "the MODEL's patches or hooks were changed"
                assert torch.equal(sampled(), expected), f"the next run differs, behind {error!r} at operation {stop.count}"
            assert same(weights(drawer.model), whole), "the MODEL's weights were changed"
    assert stopped or tried < FEW, "nothing was ever stopped"
