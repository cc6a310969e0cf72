"""Encode Photo, Decode Photo, Give Back Detail and Before and After in the ComfyUI of this process."""

import pytest
import torch


@pytest.fixture
def nodes(comfy):
    from comfyui_fluxir import nodes

    return nodes


def photo(height=77, width=101, channels=3):
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))


def test_a_photo_of_any_size_comes_back_in_its_size_and_with_its_alpha(nodes, vae):
    for given in (photo(), photo(16, 16), photo(17, 130, 4)):
        latent, empty, _padded = nodes.EncodePhoto.execute(given, vae).result
        assert latent["samples"].shape == empty["samples"].shape and not empty["samples"].any()
        assert all(side % 2 == 0 for side in latent["samples"].shape[-2:])
        image = nodes.DecodePhoto.execute(latent, vae, given).result[0]
        assert image.shape == given.shape and torch.equal(image[..., 3:], given[..., 3:])


def test_a_mask_that_hides_nothing_adds_no_alpha(nodes, vae):
    given = photo()
    latent = nodes.EncodePhoto.execute(given, vae).result[0]
    opaque = nodes.DecodePhoto.execute(latent, vae, given, torch.zeros(1, 64, 64)).result[0]
    hidden = torch.zeros(1, 77, 101)
    hidden[:, :30] = 1
    clear = nodes.DecodePhoto.execute(latent, vae, given, hidden).result[0]
    assert opaque.shape[-1] == 3 and torch.equal(clear[..., 3], 1 - hidden) and torch.equal(clear[..., :3], opaque)


def test_another_photo_than_the_encoded_one_is_refused(nodes, vae):
    latent = nodes.EncodePhoto.execute(photo(32, 32), vae).result[0]
    with pytest.raises(ValueError, match="^Decode Photo: the result is 32 x 32 pixels, smaller than the photo of 101 x 77"):
        nodes.DecodePhoto.execute(latent, vae, photo())


def test_detail_is_given_back_by_strength_and_sizes_must_fit(nodes, vae):
    given, restored = photo(), torch.cat([photo(), torch.ones(1, 77, 101, 1)], -1)
    give = nodes.GiveBackDetail.execute
    assert give(restored, given, vae, 0.0).result[0] is restored
    image = give(restored, given, vae, 1.0).result[0]
    assert image.shape == restored.shape and torch.equal(image[..., 3], restored[..., 3])
    with pytest.raises(ValueError, match="^Give Back Detail: 1 degraded images of 20 x 20 pixels for 1 restored ones of 101 x 77"):
        give(restored, photo(20, 20), vae, 1.0)


def test_before_and_after_pair_up(nodes):
    several = torch.cat([photo(), photo()])
    shown = nodes.BeforeAndAfter.execute(photo(), several, "split")
    assert shown.result[0].shape == (2, 77, 101, 3) and len(shown.ui.as_dict()["images"]) == 2
    with pytest.raises(ValueError, match="^Before and After: 2 images before for 3 after"):
        nodes.BeforeAndAfter.execute(several, torch.cat([several, photo()]), "split")


def test_sample_photos_are_placed_once_and_never_over_anothers(comfy, monkeypatch, tmp_path):
    import folder_paths
    from comfyui_fluxir.nodes.samples import SAMPLES, place_samples

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    (tmp_path / "fluxir_dogs_noisy.jpg").write_text("mine", encoding="utf-8")
    place_samples()
    assert (tmp_path / "fluxir_dogs_noisy.jpg").read_text(encoding="utf-8") == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in SAMPLES.glob("*.jpg")}
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "missing"))
    place_samples()  # nowhere to write: said in the log, and nothing else happens
    assert not (tmp_path / "missing").exists()
