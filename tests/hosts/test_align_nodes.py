"""Align to Input and Drift Verifier in the real ComfyUI."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.image.align import Drift

from ..unit.test_align import moved, photo


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import align, verifiers

    return align, verifiers


@pytest.fixture(scope="module")
def pair():
    """A photo and the same photo moved, as IMAGEs."""
    scene = photo("coffee")
    return scene.movedim(0, -1)[None], moved(scene, Drift(2.5, -3.5, 1.02)).movedim(0, -1)[None]


def inner_error(a, b):
    return (a - b)[:, 16:-16, 16:-16].square().mean()


def test_each_image_of_a_batch_is_moved_back_by_its_own_drift(nodes, pair):
    still, slid = pair
    both = torch.cat([slid, still])
    aligned, drift = nodes[0].AlignToInput.execute(both, still, True).result
    assert inner_error(aligned[:1], still) < 0.1 * inner_error(slid, still)
    assert torch.allclose(aligned[1], still[0], atol=2e-3)
    assert drift == pytest.approx(Drift(2.5, -3.5, 1.02).pixels(*still.shape[1:3]), abs=0.1)


def test_alpha_moves_with_its_image(nodes, pair):
    still, slid = pair
    alpha = torch.cat([slid, slid[..., :1]], -1)
    aligned, _ = nodes[0].AlignToInput.execute(alpha, still, True).result
    assert aligned.shape == alpha.shape and torch.allclose(aligned[..., 3], aligned[..., 0])


def test_without_scale_only_a_shift_is_undone(nodes, pair):
    still, slid = pair
    whole, shift = (nodes[0].AlignToInput.execute(slid, still, scale).result[0] for scale in (True, False))
    assert inner_error(whole, still) < inner_error(shift, still) < inner_error(slid, still)


def test_batches_that_do_not_fit_are_refused(nodes, pair):
    with pytest.raises(ValueError, match="^Align to Input: 2 degraded images for 3 restored ones; give one for each"):
        nodes[0].AlignToInput.execute(pair[0].repeat(3, 1, 1, 1), pair[0].repeat(2, 1, 1, 1), True)
    with pytest.raises(ValueError, match="^Align to Input: image 1: an image has 16 x 16 pixels"):
        nodes[0].AlignToInput.execute(torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3), True)


def test_the_verifier_takes_the_image_that_has_not_moved_alone_and_in_an_ensemble(nodes, pair):
    still, slid = pair
    (drift,) = nodes[0].DriftVerifier.execute().result
    (natural,) = nodes[1].NaturalImageVerifier.execute().result
    (ensemble,) = nodes[1].VerifierEnsemble.execute({"verifier0": natural, "verifier1": drift}, "by score").result
    for verifier in (drift, ensemble):
        scores = json.loads(nodes[1].ScoreImages.execute([torch.cat([slid, still])], [verifier], [1], [still]).result[2])
        assert scores["scores"]["drift"][1] > -0.1 > scores["scores"]["drift"][0]
    assert nodes[1].ScoreImages.execute([torch.cat([slid, still])], [drift], [1], [still]).result[1] == 1


def test_drift_needs_the_degraded_image(nodes, pair):
    (drift,) = nodes[0].DriftVerifier.execute().result
    with pytest.raises(ValueError, match="connect the degraded input"):
        nodes[1].ScoreImages.execute([pair[0]], [drift], [1])
