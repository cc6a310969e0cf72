"""Load Next Photos says on the node what it takes and what it leaves out, in the ComfyUI of this process."""

import pytest
from PIL import Image


@pytest.fixture
def folders(comfy, monkeypatch, tmp_path):
    import folder_paths

    for which in ("input", "output"):
        (tmp_path / which).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{which}_directory", lambda which=which: str(tmp_path / which))
    return tmp_path


def test_what_is_left_out_is_named_on_the_node(folders):
    from comfyui_fluxir.nodes import LoadNextPhotos

    Image.new("RGBA", (9, 7), (255, 0, 0, 128)).save(folders / "input" / "b.png")
    (folders / "input" / "a.jpg").write_bytes(b"no photo")
    output = LoadNextPhotos.execute("", "restored", 1)
    photos, names = output.result
    said = output.ui["text"]
    assert names == ["b.png"] and photos[0].shape == (1, 7, 9, 4)
    assert said == [
        "0 of 2 are done. Now: b.png.\nSkipped: a.jpg cannot be read as an image (it is of no known format); give a PNG or JPEG file."
    ]


def test_a_photo_comes_back_with_its_transparency_under_its_name(folders):
    from comfyui_fluxir.nodes import LoadNextPhotos, SavePhotoByName

    photo = Image.new("RGBA", (9, 7), (200, 30, 40, 255))
    photo.putpixel((0, 0), (200, 30, 40, 0))
    photo.save(folders / "input" / "b.png")
    photos, names = LoadNextPhotos.execute("", "restored", 1).result
    (path,) = SavePhotoByName.execute(photos[0], names[0], "restored").result
    with Image.open(path) as saved:
        assert saved.mode == "RGBA" and saved.getpixel((0, 0))[3] == 0 and saved.getpixel((5, 5)) == (200, 30, 40, 255)
    assert LoadNextPhotos.fingerprint_inputs("", "restored", 1) == []
    with pytest.raises(ValueError, match="^Save Photo by Name: name is '../b.png', which lies outside"):
        SavePhotoByName.execute(photos[0], "../b.png", "restored")


def test_what_cannot_be_read_is_not_called_done(folders):
    from comfyui_fluxir.nodes import LoadNextPhotos

    (folders / "input" / "a.jpg").write_bytes(b"no photo")
    output = LoadNextPhotos.execute("", "restored", 1)
    assert output.ui["text"][0].startswith("0 of 1 are done; the others cannot be read.\nSkipped: a.jpg cannot be read")


def test_a_photo_that_changed_and_a_result_that_was_deleted_are_looked_at_again(folders):
    from comfyui_fluxir.nodes import LoadNextPhotos, SavePhotoByName

    photo = folders / "input" / "b.png"
    photo.write_bytes(b"no photo")
    before = LoadNextPhotos.fingerprint_inputs("", "restored", 1)
    Image.new("RGB", (9, 7)).save(photo)
    assert LoadNextPhotos.fingerprint_inputs("", "restored", 1) != before
    own = SavePhotoByName.fingerprint_inputs(name="b.png")
    assert own != own  # never the same: ComfyUI runs it each time


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(folders, name):
    from comfyui_fluxir.nodes import LoadNextPhotos

    with pytest.raises(ValueError, match="^Load Next Photos: folder is .*, which no file can be called; choose another name.$"):
        LoadNextPhotos.execute(name, "restored", 1)
