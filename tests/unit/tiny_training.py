"""A transformer, an adapter and batches that train in a second."""

import torch
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.flux.tokens import image_ids
from comfyui_fluxir.training.data.batch import Batch
from comfyui_fluxir.training.diffusers_host.fluxir_host import FluxIRHost
from comfyui_fluxir.training.engine.fit import RunConfig, fit
from comfyui_fluxir.training.engine.optimizers import OptimizerConfig
from comfyui_fluxir.training.engine.processes import make_accelerator
from comfyui_fluxir.training.recipes.fluxir import FluxIRObjective, FluxIRRecipe


class Killed(Exception):
    pass


def kill():
    raise Killed


def tiny_host():
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=8,
        pooled_projection_dim=4,
        guidance_embeds=True,
    ).requires_grad_(False)
    adapter = FluxIRAdapter(AdapterConfig(FluxDimensions.from_state_dict(transformer.state_dict()), 4, text_tokens=2))
    adapter.init_from_base(transformer.state_dict())
    return FluxIRHost(transformer, adapter)


class FlatImages:
    """Flat images of random brightness, shown to the adapter as they are: most of the velocity can be read off them.

    `stop` (step, call) calls `call` before that step's batch is given.
    """

    validation, description = (), "flat images"

    def __init__(self, batch=8, stop=None):
        self.batch, self.stop, self.given = batch, stop, []

    def rows(self, step):
        return self.batch

    def __call__(self, step, rows):
        self.given.append((step, list(rows)))
        if self.stop and step == self.stop[0]:
            self.stop[1]()
        brightness = torch.randn(self.batch, 1, 1, generator=torch.Generator().manual_seed(100 + step))
        clean = 3 * brightness[rows.start : rows.stop].expand(-1, 4, 64)
        return Batch(clean, clean, torch.zeros(len(rows), 2, 8), torch.zeros(len(rows), 4), image_ids(4, 4), grid=(4, 4))


def decode(latents):
    return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def objective(host=None, **recipe):
    return FluxIRObjective(host or tiny_host(), decode, FluxIRRecipe(**{"pixel_crop": 2, **recipe}))


def run(folder, steps=6, goal=None, batches=None, optimizer=None, precision="no", **options):
    """`fit` of a tiny adapter in `folder`; its averaged state dict."""
    optimizer = OptimizerConfig(**{"learning_rate": 3e-3, "warmup": 5, "average": 0.8, "decay": 0.4, **(optimizer or {})})
    settings = RunConfig(**{"steps": steps, "batch": 8, "micro_batch": 8, **options})
    batches = batches or FlatImages(settings.batch)
    return fit(goal or objective(), batches, optimizer, settings, folder, make_accelerator(settings.sharding, precision))


def flow_error(host, weights=None):
    """Mean squared velocity error, with the adapter's `weights`, on a batch that training has not seen."""
    if weights is not None:
        host.adapter.load_state_dict(weights)
    batch, t = FlatImages()(999, range(8)), torch.linspace(0.1, 1, 8)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    z_t = (1 - t)[:, None, None] * batch.clean + t[:, None, None] * noise
    with torch.no_grad():
        condition = host.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        velocity = host.velocity(z_t, t, condition, torch.full_like(t, 4.0))
    return (velocity - (noise - batch.clean)).square().mean().item()


def assert_equal(one, other, **tolerance):
    """Two state dicts are equal, bit for bit unless a tolerance is given."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if tolerance:
            torch.testing.assert_close(value, other[name], msg=lambda text: f"{name}: {text}", **tolerance)
        else:
            assert torch.equal(value, other[name]), name
