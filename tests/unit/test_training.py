"""The FluxIR recipe: it learns, it resumes bit for bit, and its pixel loss is the right form."""

import pytest
import torch

from comfyui_fluxir.fluxir_core.adapter import AdapterConfig, FluxDimensions, FluxIRAdapter
from comfyui_fluxir.fluxir_core.tokens import image_ids
from comfyui_fluxir.training.average import averaged
from comfyui_fluxir.training.fluxir import FluxIRRecipe, pixel_loss, train_fluxir
from comfyui_fluxir.training.host import DiffusersHost
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint
from comfyui_fluxir.training.miniature.latents import Batch


def host():
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, num_attention_heads=1, joint_attention_dim=8, pooled_projection_dim=4,
        guidance_embeds=True,
    ).requires_grad_(False)  # fmt: skip
    adapter = FluxIRAdapter(AdapterConfig(FluxDimensions.from_state_dict(transformer.state_dict()), 4, text_tokens=2))
    adapter.init_from_base(transformer.state_dict())
    return DiffusersHost(transformer, adapter)


def batches(step):
    """Flat pictures of random brightness, shown to the adapter as they are: most of the velocity can be read off them."""
    torch.manual_seed(100 + step)
    clean = 3 * torch.randn(8, 1, 1).expand(8, 4, 64)
    return Batch(clean, clean, torch.zeros(8, 2, 8), torch.zeros(8, 4), image_ids(4, 4), grid=(4, 4))


def decode(latents):
    return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def recipe(**options):
    return FluxIRRecipe(**{"steps": 60, "batch": 8, "learning_rate": 3e-3, "warmup": 5, "average": 0.8, **options})


def flow_error(trained, adapter):
    """Mean squared velocity error on a batch that training has not seen."""
    trained.adapter = adapter
    batch, t = batches(999), torch.linspace(0.1, 1, 8)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    z_t = (1 - t)[:, None, None] * batch.clean + t[:, None, None] * noise
    with torch.no_grad():
        condition = trained.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        velocity = trained.velocity(z_t, t, condition, torch.full_like(t, 4.0))
    return (velocity - (noise - batch.clean)).square().mean().item()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_adapter_learns(tmp_path, alpha):
    trained = host()
    before = flow_error(trained, trained.adapter)
    adapter = train_fluxir(trained, batches, decode, recipe(alpha=alpha, pixel_crop=2), Checkpoint(tmp_path / "a.pt"))
    after = flow_error(trained, adapter)
    assert after < 0.7 * before


def test_a_resumed_run_ends_bit_identical(tmp_path):
    class Killed(Exception):
        pass

    def until(last):
        def given(step):
            if step == last:
                raise Killed
            return batches(step)

        return given

    options = recipe(steps=6)
    whole = train_fluxir(host(), batches, decode, options, Checkpoint(tmp_path / "whole.pt"))
    path = tmp_path / "resumed.pt"
    with pytest.raises(Killed):
        train_fluxir(host(), until(4), decode, options, Checkpoint(path, every=0))
    resumed = train_fluxir(host(), batches, decode, options, Checkpoint(path))
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(one, other), name


def test_a_finished_stage_is_not_run_again(tmp_path):
    options, path = recipe(steps=2), tmp_path / "a.pt"
    first = train_fluxir(host(), batches, decode, options, Checkpoint(path))
    asked = []
    again = train_fluxir(host(), asked.append, decode, options, Checkpoint(path))
    assert asked == []
    for (name, one), other in zip(first.state_dict().items(), again.state_dict().values()):
        assert torch.equal(one, other), name


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path, module = tmp_path / "a.pt", torch.nn.Linear(2, 2)
    list(Checkpoint(path).steps(1, module))
    saved = path.read_bytes()

    def half_written(_state, partial):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        list(Checkpoint(path).steps(2, module))
    assert path.read_bytes() == saved


def test_the_pixel_loss_compares_decoded_estimates_with_the_decoded_truth():
    clean = torch.randn(2, 16, 8, 8)
    assert pixel_loss(decode, clean, clean, crop=4) == 0
    shifted = clean + 0.25
    assert pixel_loss(decode, shifted, clean, crop=4).item() == pytest.approx(0.25, rel=1e-5)
    estimate = (clean + 0.1).requires_grad_()
    pixel_loss(decode, estimate, clean, crop=4).backward()
    assert (estimate.grad != 0).flatten(1).any(1).all()


def test_the_average_follows_a_short_run_and_smooths_a_long_one():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = averaged(model, 0.99)
    average.update_parameters(model)
    torch.nn.init.ones_(model.weight)
    followed = []
    for _ in range(1000):
        average.update_parameters(model)
        followed.append(average.module.weight.item())
    assert followed[9] > 0.95
    torch.nn.init.zeros_(model.weight)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(0.99, abs=1e-3)
