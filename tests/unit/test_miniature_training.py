"""What the miniature is trained on and by: its stages, its images, its autoencoder."""

import pytest
import torch
from comfyui_fluxir.training.engine.draws import Draws
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint


def test_a_stage_of_the_miniature_does_not_go_on_with_anothers_checkpoint(tmp_path):
    module, path = torch.nn.Linear(2, 2), tmp_path / "a.pt"
    assert list(Checkpoint(path, identity={"model": "one"}).steps(1, module)) == [0]
    assert list(Checkpoint(path, identity={"model": "one"}).steps(2, module)) == [1]
    for other in ({"model": "another"}, None):
        with pytest.raises(ValueError, match="a.pt holds another run's checkpoints .its model differ.; give another --work"):
            list(Checkpoint(path, identity=other).steps(3, module))


def test_a_window_gives_every_step_the_same_items_whatever_came_before():
    from comfyui_fluxir.training.miniature.stream import Window

    made = []
    window = Window(lambda i: made.append(i) or i, size=4, fresh=2)
    assert [window(step) for step in range(3)] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert Window(lambda i: i, size=4, fresh=2)(2) == [4, 5, 6, 7]
    assert len(made) == len(set(made))


def test_the_miniatures_images_and_pairs_are_the_same_every_time():
    from comfyui_fluxir.training.miniature.autoencoder import NARROW, NarrowTAESD
    from comfyui_fluxir.training.miniature.latents import PairStream
    from comfyui_fluxir.training.miniature.stream import ImageStream

    torch.manual_seed(0)
    autoencoder = NarrowTAESD(NARROW).eval()
    first, again = (PairStream(ImageStream(size=64), autoencoder) for _ in range(2))
    for i in (0, 7):
        for one, same in zip(first(i), again(i), strict=True):
            assert torch.equal(one, same)
    assert not torch.equal(first(0).clean, first(7).clean)
    assert not torch.equal(first(0).clean, first(0).degraded)
    plain = PairStream(ImageStream(size=64), autoencoder, degrade=None)(0)
    assert torch.equal(plain.clean, plain.degraded) and torch.equal(plain.clean, first(0).clean)


def test_a_grown_autoencoder_computes_the_same_and_every_new_channel_learns():
    from comfyui_fluxir.training.miniature.autoencoder import NARROW, WIDTHS, NarrowTAESD

    torch.manual_seed(0)
    narrow = NarrowTAESD(NARROW)
    for parameter in narrow.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    wide, images = narrow.grown(WIDTHS), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(wide.encode(images), narrow.encode(images))
        latents = narrow.encode(images)
        torch.testing.assert_close(wide.decode(latents), narrow.decode(latents))
    wide.decode(wide.encode(images)).square().mean().backward()
    assert wide.taesd_encoder[2].weight.grad[:, NARROW[0] :].abs().max() > 0


def test_the_offset_of_the_noise_is_one_for_each_channel_of_a_latent():
    from comfyui_fluxir.fluxir_core.flux.tokens import unpack_latents

    plain, toned = (Draws(0, 0, range(64)).noise((256, 64), tone) for tone in (0.0, 0.5))
    offset = unpack_latents(toned - plain, 32, 32)
    assert torch.allclose(offset, offset.mean((2, 3), keepdim=True).expand_as(offset), atol=1e-5)
    assert 0.45 < offset.mean((2, 3)).std() < 0.55


def test_a_finished_stage_of_the_miniature_is_not_run_again(tmp_path):
    module = torch.nn.Linear(2, 2)
    assert list(Checkpoint(tmp_path / "a.pt").steps(3, module)) == [0, 1, 2]
    assert list(Checkpoint(tmp_path / "a.pt").steps(3, module)) == []
