"""Every node of the pack with what ComfyUI can pass it: done, or refused in one sentence, and no input is touched."""

import json

import pytest
import torch

from .harness import cases, repeatable
from .node_inputs import call, conditioning, latent, noise, tensor
from .node_oracles import assert_named, copied, same, tensors, weights

UNREPEATABLE = {"FluxIRBudgetPlan", "FluxIRSaveImagePairs"}
"""One measures times, the other never writes to the same file twice."""
LIKE = {
    "FluxIRMatchColor": "image",
    "FluxIRDegradeImage": "image",
    "FluxIRGiveBackDetail": "restored",
    "FluxIRAlignToInput": "restored",
    "FluxIRDegradationCheck": "cleaned",
}
"""The IMAGE that a node gives back changed, by the shape of its input of this name."""


def in_range(values):
    return all(own.isfinite().all() and own.min() >= 0 and own.max() <= 1 for own in values if own.numel())


def check_output(node, place, output, value, inputs):
    kind, images = output.io_type, [own for name, own in inputs.items() if isinstance(own, torch.Tensor) and own.ndim == 4]
    lists = value if output.is_output_list else [value]
    for own in lists:
        if kind == "IMAGE" and isinstance(own, torch.Tensor):
            assert own.ndim == 4 and own.shape[-1] in (1, 3, 4) and own.numel() and own.is_floating_point(), own.shape
            if place == 0 and node in LIKE:
                assert own.shape == inputs[LIKE[node]].shape, own.shape
            if in_range(images):
                assert own.isfinite().all() and own.min() >= -1e-5 and own.max() <= 1 + 1e-5, (own.min(), own.max())
        elif kind == "MASK":
            assert own.ndim == 3 and own.isfinite().all() and own.min() >= 0 and own.max() <= 1
        elif kind == "LATENT":
            assert own["samples"].ndim == 4 and own["samples"].shape[1] == 16 and own["samples"].isfinite().all()
        elif kind == "SIGMAS":
            assert own.ndim == 1 and own.isfinite().all() and (own.diff() < 0).all() and own[-1] == 0
        elif kind in ("STRING", "INT", "FLOAT", "BOOLEAN"):
            assert isinstance(own, {"STRING": str, "INT": int, "FLOAT": (int, float), "BOOLEAN": bool}[kind]), own
            if kind == "FLOAT":
                assert own == own and abs(own) < float("inf")
            if kind == "STRING" and own.startswith("{"):
                json.loads(own, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        elif kind == "CONDITIONING":
            assert all(len(entry) == 2 and entry[0].isfinite().all() for entry in own)


def use(draw, drawer, kind, value):
    """Does with an output what the nodes of core behind it would: samples a MODEL, decodes with a VAE, judges with a verifier."""
    from comfy.samplers import CFGGuider, sampler_object
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
    from comfyui_fluxir.fluxir_core.searches.search import estimate_cost

    if kind == "VAE":
        return [value.decode(tensor(draw, 1, 16, 8, 8)), value.encode(tensor(draw, 1, 64, 64, 3))]
    if kind == "FLUXIR_VERIFIER":
        return list(value.measure(tensor(draw, 2, 3, 64, 64), tensor(draw, 1, 3, 64, 64)).values())
    if kind == "FLUXIR_SEARCH":
        assert estimate_cost(value, torch.linspace(1, 0, 1 + draw.choice((1, 4, 30))))["nfe"] > 0
    if kind in ("MODEL", "SAMPLER"):
        positive, start, random = conditioning(draw), latent(draw), noise(draw)
        steps, cfg = torch.linspace(1, 0, draw.choice((2, 3))), draw.choice((1.0, 1.0, 4.0))

        def sampled(model, sampler):
            guider = CFGGuider(model)
            guider.set_conds(positive, positive)
            guider.set_cfg(cfg)
            return SamplerCustomAdvanced.execute(random, guider, sampler, steps, start).result[0]["samples"]

        plain = sampler_object("euler")
        try:
            sampled(drawer.model, plain)
        except Exception:  # core can do nothing with these
            return []
        return [sampled(value, plain) if kind == "MODEL" else sampled(drawer.model, value)]
    return []


def test_any_call_of_a_node_is_done_or_refused_in_one_sentence(drawer):
    before = weights(drawer.model)
    for draw in cases("nodes", 15):
        node_id = sorted(drawer.kinds)[draw.number % len(drawer.kinds)] if draw.maybe(0.5) else draw.choice(sorted(drawer.kinds))
        node = drawer.kinds[node_id]
        with repeatable(draw, node_id):
            inputs = drawer.inputs(draw, node)
            kept = copied(inputs)
            try:
                outputs = call(node, inputs)
            except ValueError as error:
                assert_named(error, drawer)
                outputs = ()
            assert same(copied(inputs), kept), "an input was changed"
            for place, (output, value) in enumerate(zip(node.define_schema().outputs, outputs)):
                check_output(node_id, place, output, value, inputs)
                try:
                    with torch.inference_mode():
                        used = use(draw, drawer, output.io_type, value)
                except ValueError as error:
                    assert_named(error, drawer)
                    used = []
                assert all(own.isfinite().all() for own in used)
            if outputs and node_id not in UNREPEATABLE and draw.maybe(0.3):
                again = call(node, inputs)
                assert all(map(same, tensors(outputs), tensors(again))), "the same inputs gave another result"
                assert [own for own in outputs if isinstance(own, str)] == [own for own in again if isinstance(own, str)]
            if draw.maybe(0.2):
                assert same(weights(drawer.model), before), "the MODEL's weights were changed"
