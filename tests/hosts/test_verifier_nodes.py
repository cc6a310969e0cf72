"""The verifier nodes in the real ComfyUI of this process."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ..unit.public_layouts import head_shapes, random_state, write_clip_folder, write_image_reward_folder


@pytest.fixture(scope="module")
def shelf(comfy, tmp_path_factory):
    """models/fluxir_verifiers with small random weights under the public names."""
    import folder_paths
    from comfyui_fluxir.nodes.folders import VERIFIERS, register_model_folders

    register_model_folders()
    folder = tmp_path_factory.mktemp("verifiers")
    (folder / "clip-vit-large-patch14").mkdir()
    (folder / "ImageReward").mkdir()
    write_clip_folder(folder / "clip-vit-large-patch14")
    write_image_reward_folder(folder / "ImageReward")
    save_file(random_state(head_shapes(24)), folder / "head.safetensors")
    folder_paths.add_model_folder_path(VERIFIERS, str(folder), is_default=True)
    return folder


@pytest.fixture
def loaded(shelf):
    from comfyui_fluxir.nodes import reward_models

    return {
        "clip_score": lambda: reward_models.CLIPScoreVerifier.execute("clip-vit-large-patch14", "a red house").result[0],
        "image_reward": lambda: reward_models.ImageRewardVerifier.execute("ImageReward", "a red house").result[0],
        "aesthetic": lambda: reward_models.AestheticVerifier.execute("clip-vit-large-patch14", "head.safetensors").result[0],
    }


def noisy_images(seed=0, count=3, size=64):
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


def score(verifier, images, degraded=None):
    """The best of a batch, its index and the report."""
    [best], index, report, *_ = scored(verifier, [images], None if degraded is None else [degraded])
    return best, index, report


def scored(verifier, images, degraded=None, keep=1, latents=None):
    """All outputs of Score Images for lists, as ComfyUI gives them; the report as what it says."""
    from comfyui_fluxir.nodes.verifiers import ScoreImages

    with torch.inference_mode():
        best, index, report, sheet, chosen = ScoreImages.execute(images, [verifier], [keep], degraded, latents).result
    return best, index, json.loads(report), sheet, chosen


class Brightness:
    """Judges by the mean, and refuses what is black."""

    name = "brightness"

    def __call__(self, images, reference):
        mean = images.mean((1, 2, 3))
        return torch.where(mean > 0, mean, -torch.inf)


@pytest.fixture
def bright(comfy):
    from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    return LoadedVerifier(Ensemble([Brightness()]))


def gray(*levels, size=32):
    return torch.tensor(levels)[:, None, None, None].expand(-1, size, size, 3)


def test_the_best_of_a_batch_and_their_latents_are_kept_best_first(bright):
    images, latents = gray(0.3, 0.9, 0.0, 0.6, 0.5), torch.arange(5.0)[:, None, None, None].expand(-1, 16, 4, 4)
    [best], index, report, _, [chosen] = scored(bright, [images], keep=3, latents=[{"samples": latents, "batch_index": [1]}])
    assert index == 1 and report["order"] == [1, 3, 4, 0]  # not the black one
    assert torch.equal(best, images[[1, 3, 4]]) and torch.equal(chosen["samples"], latents[[1, 3, 4]]) and len(chosen) == 1
    [everything], *_ = scored(bright, [images], keep=9)
    assert torch.equal(everything, images[[1, 3, 4, 0]])


def test_of_a_list_of_images_the_best_are_a_batch_where_they_have_one_size(bright):
    small, large = gray(0.3, 0.6, size=32), gray(0.5, 0.4, size=48)
    latents = [{"samples": torch.full((2, 16, 4, 4), 1.0)}, {"samples": torch.full((2, 16, 6, 6), 2.0)}]
    best, index, report, sheet, chosen = scored(bright, [small, large], keep=3, latents=latents)
    assert index == 1 and report["order"] == [1, 2, 3, 0]
    assert [tuple(image.shape[:2]) for image in best] == [(1, 32), (1, 48), (1, 48)]
    assert [latent["samples"].shape[-1] for latent in chosen] == [4, 6, 6] and sheet.shape[2] == 768
    [both], *_ = scored(bright, [small, gray(0.5, 0.4)], keep=3)
    assert torch.equal(both, gray(0.6, 0.5, 0.4))


def test_latents_that_are_not_the_images_own_are_refused(bright):
    with pytest.raises(ValueError, match="^Score Images: 1 latents for 2 images; give one for each, or none."):
        scored(bright, [gray(0.3, 0.6)], latents=[{"samples": torch.zeros(1, 16, 4, 4)}])
    with pytest.raises(ValueError, match="^Score Images: 2 degraded images; give the one that all images restore."):
        scored(bright, [gray(0.3, 0.6)], degraded=[gray(0.3), gray(0.6)])


@pytest.mark.parametrize("name", ["clip_score", "image_reward", "aesthetic"])
def test_reward_models_score_through_comfyuis_memory_management(loaded, name):
    import comfy.model_management

    verifier = loaded[name]()
    best, index, report = score(verifier, noisy_images())
    assert len(set(report["scores"][name])) == 3 and torch.equal(best[0], noisy_images()[index])
    assert report["values"][index] == max(report["values"])
    assert verifier.patchers[0] in comfy.model_management.loaded_models()


def test_images_are_scored_as_many_at_once_as_memory_holds(comfy, monkeypatch):
    import comfy.model_management
    from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
    from comfyui_fluxir.nodes.verifiers import COPIES, LoadedVerifier

    groups, freed = [], []

    class Difference:
        name = "difference"

        def __call__(self, images, reference):
            groups.append(len(images))
            return -(images - reference).abs().mean((1, 2, 3))

    images, inputs = noisy_images(1, 6).movedim(-1, 1), noisy_images(2, 2).movedim(-1, 1)
    needed = COPIES * images[0].nbytes
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 4.5 * needed)
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda *given: freed.append(given[0]))
    found = LoadedVerifier(Ensemble([Difference()])).measure(images, inputs)["difference"]
    assert groups == [4, 2] and freed == [needed]
    torch.testing.assert_close(found, -(images - inputs.repeat(3, 1, 1, 1)).abs().mean((1, 2, 3)))


@pytest.mark.parametrize("degraded", [False, True])
def test_canceling_ends_the_scoring_after_the_image_at_hand(comfy, degraded):
    import comfy.model_management
    from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    class Slow:
        name, seen = "slow", 0

        def __call__(self, images, reference):
            self.seen += len(images)
            comfy.model_management.interrupt_current_processing(True)
            return images.mean((1, 2, 3))

    slow, given = Slow(), noisy_images(2, 1, 32) if degraded else None
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        score(LoadedVerifier(Ensemble([slow])), noisy_images(1, 4, 512), given)
    assert slow.seen == 1


def test_the_combos_offer_what_stands_in_the_folder(shelf):
    from comfyui_fluxir.nodes.reward_models import AestheticVerifier, CLIPScoreVerifier

    (model,) = (i for i in CLIPScoreVerifier.define_schema().inputs if i.id == "model")
    (head,) = (i for i in AestheticVerifier.define_schema().inputs if i.id == "head")
    assert {"clip-vit-large-patch14", "ImageReward"} <= set(model.options) and "head.safetensors" in head.options


def test_a_missing_file_is_named_with_its_folder_and_source(shelf):
    from comfyui_fluxir.nodes.reward_models import AestheticVerifier, CLIPScoreVerifier, PyIQAVerifier

    with pytest.raises(ValueError, match="^Aesthetic Verifier: sac.*linearMSE.pth is missing; put it into .*, from "):
        AestheticVerifier.execute("clip-vit-large-patch14", "sac+logos+ava1-l14-linearMSE.pth")
    with pytest.raises(ValueError, match="^CLIP-Score Verifier: config.json is missing; put it into .*nowhere, from openai"):
        CLIPScoreVerifier.execute("nowhere", "a house")
    with pytest.raises(ValueError, match="^PyIQA Verifier: (?!PyIQAMetric)"):
        PyIQAVerifier.execute("no_such_metric")


def test_the_papers_ensemble_ranks_by_three_reward_models(loaded):
    from comfyui_fluxir.nodes.verifiers import VerifierEnsemble

    members = {f"verifier{i}": make() for i, make in enumerate(loaded.values())}
    both = [VerifierEnsemble.execute(members, how).result[0] for how in ("by rank", "by score")]
    reports = [score(verifier, noisy_images(count=4))[2] for verifier in both]
    assert set(reports[0]["scores"]) == set(loaded)
    assert all(abs(6 * value - round(6 * value)) < 1e-4 for value in reports[0]["values"])  # ranks are multiples of 1/3
    assert not torch.allclose(*(torch.tensor(report["values"]) for report in reports))
    assert len(both[0].patchers) == 3


def test_the_sheet_shows_all_images_and_frames_the_best(comfy):
    from comfyui_fluxir.fluxir_core.image.candidates import candidate_sheet
    from comfyui_fluxir.nodes.runtime import pil_to_image, to_planes
    from comfyui_fluxir.nodes.verifiers import NaturalImageVerifier

    smooth = (
        torch.nn.functional.interpolate(noisy_images(count=5, size=8).movedim(-1, 1), 64, mode="bicubic").movedim(1, -1).clamp(0, 1)
    )
    _, best, report, sheet, _ = scored(NaturalImageVerifier.execute().result[0], [smooth])
    expected = candidate_sheet(to_planes(smooth), report["values"], report["scores"], best)
    assert "refused" not in report and sheet.max() <= 1
    assert torch.equal(sheet, pil_to_image(expected)) and sheet.shape[2:] == (768, 3)


def test_the_same_verifier_twice_is_refused(loaded):
    from comfyui_fluxir.nodes.verifiers import VerifierEnsemble

    with pytest.raises(ValueError, match="Verifier Ensemble: the verifiers .* share a name; leave the second out"):
        VerifierEnsemble.execute({"verifier0": loaded["aesthetic"](), "verifier1": loaded["aesthetic"]()}, "by rank")


def test_the_natural_image_verifier_prefers_the_undistorted_and_knows_the_input(comfy):
    from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur, gaussian_noise
    from comfyui_fluxir.nodes.verifiers import NaturalImageVerifier
    from comfyui_fluxir.training.miniature.scenes import load_photo

    photo = torch.from_numpy(load_photo("astronaut")[:256, :256].copy()).permute(2, 0, 1).float() / 255
    broken = [gaussian_blur(photo, 3), gaussian_noise(photo, 40, torch.Generator().manual_seed(0))]
    batch = torch.stack([broken[0], photo, broken[1]]).permute(0, 2, 3, 1)
    verifier = NaturalImageVerifier.execute().result[0]
    assert score(verifier, batch)[1] == 1
    _, _, report = score(verifier, batch, degraded=batch[:1])
    assert "consistency" in report["scores"]
    with pytest.raises(ValueError, match="Score Images: 2 degraded images; give the one"):
        score(verifier, batch, degraded=batch[:2])


def test_that_every_image_is_refused_is_said(comfy, caplog):
    from comfyui_fluxir.nodes.verifiers import NaturalImageVerifier

    verifier = NaturalImageVerifier.execute().result[0]
    broken, good = noisy_images(count=2) * torch.nan, torch.full((1, 64, 64, 3), 0.5)
    assert score(verifier, torch.cat([broken, good]))[1] == 2
    with caplog.at_level("WARNING"):
        best, index, report = score(verifier, broken)
    assert index == 0 and torch.equal(best.isnan(), broken[:1].isnan()) and report["values"] == [None, None]
    assert report["refused"].startswith("the verifier refuses all of 2 images (niqe, ") and report["refused"] in caplog.text
