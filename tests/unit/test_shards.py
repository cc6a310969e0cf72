"""Shards and sources: written whole, the same bytes every time, read by webdataset, and nothing odd stops them."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.image.files import image_size, load_image, png_bytes
from PIL import Image, ImageFile


def image(number, height=5, width=7):
    """A random image in steps of 8 bits."""
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(number)) / 255


def write(path, numbers=range(3), pairs=True, stop=None):
    """Writes a shard with the samples `numbers`, in so far as it lacks them; gives up before the sample `stop`."""
    with ShardWriter(path) as shard:
        for number in numbers:
            if number == stop:
                raise KeyboardInterrupt
            if (key := f"{number:04d}") not in shard.keys:
                files = {"hq.png": png_bytes(image(number))}
                files |= {"lq.png": png_bytes(image(100 + number))} if pairs else {}
                shard.add(key, files, {"prompt": f"a tree, №{number}", "seed": number})
    return path


def test_a_shard_is_read_back_sample_by_sample_in_any_order(tmp_path):
    source = ImageSource(write(tmp_path / "a.tar").parent)
    assert len(source) == 3 and source.skipped == [] and source.keys == ["0000", "0001", "0002"]
    for index in (2, 0, 1):
        record = source[index]
        assert torch.equal(record.hq, image(index)) and torch.equal(record.lq, image(100 + index))
        assert record.metadata == {"prompt": f"a tree, №{index}", "seed": index}
        assert source.size_of(index) == (5, 7)


def test_webdataset_reads_our_shards_as_it_reads_any(tmp_path):
    wds = pytest.importorskip("webdataset")
    path = write(tmp_path / "a.tar")
    samples = list(wds.WebDataset(str(path), shardshuffle=False, empty_check=False).decode("torchrgb"))
    assert [sample["__key__"] for sample in samples] == ["0000", "0001", "0002"]
    for number, sample in enumerate(samples):
        assert torch.equal(sample["hq.png"], image(number)) and torch.equal(sample["lq.png"], image(100 + number))
        assert sample["json"]["seed"] == number


def test_the_same_samples_are_the_same_bytes_and_tar_files(tmp_path):
    one, other = (write(tmp_path / name / "a.tar") for name in ("x", "y"))
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as tar:
        assert all(member.mtime == 0 and member.uid == 0 and not member.uname for member in tar)


def test_a_write_that_was_cut_off_at_any_byte_is_finished_to_the_same_bytes(tmp_path):
    whole = write(tmp_path / "whole.tar", range(2)).read_bytes()
    path = tmp_path / "cut.tar"
    for length in (*range(0, len(whole), 211), len(whole)):
        path.with_name("cut.tar.partial").write_bytes(whole[:length])
        write(path, range(2))
        assert path.read_bytes() == whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cut.tar", "whole.tar"]


def test_until_it_is_complete_a_shard_has_no_name(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.tar", stop=2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.partial"]


def test_two_processes_do_not_write_one_shard(tmp_path):
    with ShardWriter(tmp_path / "a.tar"):
        with pytest.raises(ValueError, match="a.tar is being written by another process; .* RANK and WORLD_SIZE"):
            write(tmp_path / "a.tar")


def test_a_folder_of_photos_is_a_source_with_captions_beside_them(tmp_path):
    (tmp_path / "holiday").mkdir()
    for number, name in enumerate(("b.png", "holiday/a.v2.png")):
        (tmp_path / name).write_bytes(png_bytes(image(number)))
    (tmp_path / "b.txt").write_text("a red house \n", encoding="utf-8")
    source = ImageSource(tmp_path)
    assert source.names == ["b.png", "holiday/a.v2.png"] and source.keys == ["b", "holiday/a_v2"]
    assert torch.equal(source[1].hq, image(1)) and source[1].lq is None and source[1].metadata == {}
    assert source[0].metadata == {"prompt": "a red house"}


def test_shards_of_others_are_read_by_their_extensions(tmp_path):
    with tarfile.open(tmp_path / "theirs.tar", "w") as tar:
        jpeg = io.BytesIO()
        Image.new("RGB", (9, 4)).save(jpeg, "JPEG")
        for name, data in {"d/1.jpg": jpeg.getvalue(), "d/1.txt": b"night", "d/2.cls": b"0"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = ImageSource(tmp_path)
    assert source[0].hq.shape == (3, 4, 9) and source[0].metadata == {"prompt": "night"}
    assert source.skipped == [("theirs.tar/d/2", "it holds no image")]


def foreign(path, files):
    """A tar file of `files`, [(member, bytes)], as anybody may have made it."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_files_of_a_sample_belong_together_in_any_order(tmp_path):
    images = [(f"{key}.png", png_bytes(image(number))) for number, key in enumerate("abc")]
    texts = [(f"{key}.txt", f"prompt {key}".encode()) for key in "cba"]
    foreign(tmp_path / "theirs.tar", [*images, *texts])
    source = ImageSource(tmp_path)
    assert source.keys == ["a", "b", "c"] and source.skipped == []
    for number, key in enumerate("abc"):
        assert torch.equal(source[number].hq, image(number)) and source.metadata_of(number) == {"prompt": f"prompt {key}"}


def test_names_that_climb_out_of_the_folder_are_changed(tmp_path):
    data = png_bytes(image(0))
    names = ["../../up/x.png", "/etc/y.png", "C:\\z.png", "a/./../b.png"]
    foreign(tmp_path / "theirs.tar", [(name, data) for name in names])
    source = ImageSource(tmp_path)
    assert source.keys == ["up/x", "etc/y", "C_/z", "a/b"]
    with ShardWriter(tmp_path / "ours" / "a.tar") as shard:
        for key in source.keys:
            shard.add(key, {"hq.png": data}, {})
    with tarfile.open(tmp_path / "ours" / "a.tar") as tar:
        tar.extractall(tmp_path / "deep" / "er", filter="data")
    assert (tmp_path / "deep" / "er" / "up" / "x.hq.png").exists() and not (tmp_path / "up").exists()


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"prompt": 5}', b'{"prompt": null}', b"\xff", b"[1]", b"5"])
def test_metadata_that_is_odd_is_refused_by_its_name(tmp_path, text):
    foreign(tmp_path / "theirs.tar", [("a.png", png_bytes(image(0))), ("a.json", text)])
    with pytest.raises(ValueError, match=r"^the text beside theirs.tar/a.png cannot be read .*; write it again.$"):
        ImageSource(tmp_path)[0]


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
    write(tmp_path / "a.tar")
    first = ImageSource(tmp_path).fingerprint
    assert ImageSource(tmp_path).fingerprint == first
    write(tmp_path / "b.tar", range(3, 5))
    assert ImageSource(tmp_path).fingerprint != first


def test_only_what_is_to_be_kept_is_in_the_source(tmp_path):
    write(tmp_path / "a.tar")
    source = ImageSource(tmp_path, keep={"a.tar/0001.hq.png"})
    assert source.keys == ["0001"] and source[0].metadata["seed"] == 1


def test_parts_are_shards_or_so_many_photos(tmp_path):
    shards, photos = tmp_path / "shards", tmp_path / "photos"
    photos.mkdir()
    write(shards / "a.tar", range(2))
    write(shards / "b.tar", range(2, 5))
    for number in range(5):
        (photos / f"{number}.png").write_bytes(png_bytes(image(number)))
    assert ImageSource(shards).parts() == {"a": range(2), "b": range(2, 5)}
    assert ImageSource(photos).parts(3) == {"images-000000": range(3), "images-000001": range(3, 5)}


def test_of_a_shard_cut_off_anywhere_the_whole_samples_remain_and_the_rest_is_reported(tmp_path):
    path = write(tmp_path / "a.tar")
    whole = path.read_bytes()
    write(tmp_path / "good.tar", [9])
    (tmp_path / "none.tar").write_bytes(b"")
    (tmp_path / "text.tar").write_text("no tar file" * 99, encoding="utf-8")
    # Between two samples nothing is lost; anywhere else it is not lost in silence.
    ends = [len(write(tmp_path / "part" / f"{count}.tar", range(count)).read_bytes()) - 1024 for count in (1, 2, 3)]
    for length in (*range(0, len(whole) - 1024, 331), *ends):
        path.write_bytes(whole[:length])
        source = ImageSource(tmp_path)
        assert source.keys[-1] == "0009" and {"none.tar", "text.tar"} < {name for name, _ in source.skipped} | {""}
        for index, key in enumerate(source.keys):
            assert torch.equal(source[index].hq, image(int(key))) and source[index].lq is not None
        assert any(name.startswith("a.tar") for name, _ in source.skipped) or length in ends


def test_a_header_that_was_overwritten_is_noticed(tmp_path):
    path = write(tmp_path / "a.tar")
    data, place = path.read_bytes(), path.read_bytes().index(b"0001.hq.png")
    path.write_bytes(data[:place] + b"\xff" * 512 + data[place + 512 :])
    source = ImageSource(tmp_path)
    assert source.keys == ["0000"] and source.skipped == [("a.tar", "it is broken behind 0000")]


def odd(name):
    """(the bytes of an odd image file, the color it should show)."""
    file = io.BytesIO()
    if name == "cmyk.jpg":
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, "JPEG", quality=100)
        return file.getvalue(), (1, 0, 0)
    if name == "gray16.png":
        Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(file, "PNG")
        return file.getvalue(), (0x8000 / 0xFFFF,) * 3
    if name == "clear.png":
        Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save(file, "PNG")
        return file.getvalue(), (1, 1, 1)
    if name == "glass.png":
        Image.new("LA", (8, 8), (0, 102)).save(file, "PNG")
        return file.getvalue(), (0.6, 0.6, 0.6)
    Image.new("P", (8, 8)).save(file, "PNG", transparency=0)
    return file.getvalue(), (1, 1, 1)


@pytest.mark.parametrize("name", ["cmyk.jpg", "gray16.png", "clear.png", "glass.png", "palette.png"])
def test_odd_images_become_what_a_viewer_shows(tmp_path, name):
    data, color = odd(name)
    (tmp_path / name).write_bytes(data)
    shown = ImageSource(tmp_path)[0].hq
    torch.testing.assert_close(shown, torch.tensor(color).float()[:, None, None].expand(3, 8, 8), atol=0.01, rtol=0)


def test_a_turned_image_is_upright_and_its_size_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "b.jpg", exif=exif, quality=100)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "c.tif", exif=exif)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "d.webp", exif=exif, lossless=True)
    source = ImageSource(tmp_path)
    for index in range(4):
        assert source.size_of(index) == (3, 2)
        assert np.abs(source[index].hq[0].numpy() * 255 - np.rot90(pixels, -1)).max() < 10


def test_a_turned_gray_tiff_is_read_from_its_path_as_from_an_open_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(64, dtype=np.uint8).reshape(4, 16)
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=exif)
    assert torch.equal(load_image(tmp_path / "a.tif")[0] * 255, torch.from_numpy(np.rot90(pixels, -1).copy()).float())


def test_a_size_is_known_without_decoding(tmp_path, monkeypatch):
    write(tmp_path / "a.tar")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("the image was decoded"))
    assert ImageSource(tmp_path).size_of(1) == (5, 7)


BROKEN = {
    "text.png": lambda: b"no image",
    "half.png": lambda: png_bytes(image(0, 64, 64))[:600],
    "half.jpg": lambda: odd("cmyk.jpg")[0][:-200],
    "broken.png": lambda: png_bytes(image(0)).replace(b"IDAT", b"\0\0\0\0"),
    "float.tif": lambda: tiff(np.zeros((4, 4), np.float32)),
}


def tiff(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_refused_by_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name]())
    with pytest.raises(ValueError, match=f"^{name} cannot be read as an image .*; give a PNG or JPEG file.$"):
        ImageSource(tmp_path)[0]


def test_further_frames_are_named_once(tmp_path, caplog):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    source = ImageSource(tmp_path)
    for _ in range(2):
        assert torch.equal(source[0].hq[:, 0, 0], torch.tensor([1.0, 0, 0]))
    assert [record.getMessage() for record in caplog.records] == ["pages.tif: only the first of its 3 frames is used"]


@pytest.mark.parametrize("suffix", ["avif", "gif", "jfif"])
def test_further_formats_are_found_in_a_folder(tmp_path, suffix):
    Image.new("RGB", (16, 16), "red").save(tmp_path / f"a.{suffix}", quality=95)
    torch.testing.assert_close(ImageSource(tmp_path)[0].hq[:, 3, 3], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)


def test_a_format_that_pillow_must_be_taught_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a")
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(ValueError, match="^a.jxl cannot be read as an image .*with the package pillow-jxl-plugin"):
        ImageSource(tmp_path)[0]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    (tmp_path / "giant.png").write_bytes(png_bytes(image(0, 40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    source = ImageSource(tmp_path)
    for read in (source.__getitem__, source.size_of):
        with pytest.raises(ValueError, match="^giant.png cannot be read as an image .*exceeds limit"):
            read(0)


def test_empty_files_and_images_that_share_a_name_are_reported(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(image(0)))
    (tmp_path / "a.webp").write_bytes(png_bytes(image(1)))
    (tmp_path / "b.jpg").touch()
    source = ImageSource(tmp_path)
    assert source.names == ["a.png"]
    assert source.skipped == [("a.webp", "it shares its name with a.png"), ("b.jpg", "the file is empty")]


def test_a_source_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image to use; give a folder"):
        ImageSource(tmp_path)
    with pytest.raises(ValueError, match="is no folder; give one"):
        ImageSource(tmp_path / "nothing")


def test_a_pair_of_two_sizes_and_metadata_that_is_none_are_refused(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.add("a", {"hq.png": png_bytes(image(0)), "lq.png": png_bytes(image(0, 9, 9))}, {})
        shard.add("b", {"hq.png": png_bytes(image(0))}, [1])
    source = ImageSource(tmp_path)
    with pytest.raises(ValueError, match="a.hq.png and its degraded image differ in size"):
        source[0]
    with pytest.raises(ValueError, match="the text beside a.tar/b.hq.png cannot be read"):
        source[1]


def test_an_image_loads_from_a_path_and_from_an_open_file_alike(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(image(3)))
    with path.open("rb") as file:
        assert torch.equal(load_image(path), load_image(file)) and image_size(path) == (5, 7)


def test_metadata_is_plain_json(tmp_path):
    with tarfile.open(write(tmp_path / "a.tar")) as tar:
        assert json.load(tar.extractfile("0001.json")) == {"prompt": "a tree, №1", "seed": 1}
