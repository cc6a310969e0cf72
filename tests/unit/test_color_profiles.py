"""Color profiles: what a file means is what is read, wherever it is read."""

import io
import struct

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.data.shards import ShardWriter
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.image.files import load_image, read_image
from PIL import Image, ImageCms

D50 = (0.9642, 1, 0.8249)
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71187, 0.0), (0.03135, 0.00009, 0.82521))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SHOWN = ((180, 60, 60), (60, 150, 70), (90, 90, 160), (128, 128, 128))
"""sRGB colors inside all of these gamuts."""


def fixed(value):
    return struct.pack(">i", round(value * 65536))


def curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)


def xyz(values):
    return b"XYZ " + bytes(4) + b"".join(map(fixed, values))


def profile(space, kind=b"mntr", **tags):
    """The bytes of an ICC profile (version 2) of the color `space`, a name of four bytes."""
    text = b"a test's profile"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 12 + 67)
    tags = {"desc": described, "cprt": b"text" + bytes(4) + b"none" + bytes(4), "wtpt": xyz(D50), **tags}
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = bytes(8) + struct.pack(">I", 0x02400000) + kind + space + b"XYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    head += b"acsp" + bytes(28) + b"".join(map(fixed, D50))
    whole = head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def rgb(primaries, gamma=2.2):
    columns = {f"{letter}XYZ": xyz(primary) for letter, primary in zip("rgb", primaries)}
    return profile(b"RGB ", **columns, **{f"{letter}TRC": curve(gamma) for letter in "rgb"})


def stored(icc):
    """The numbers that mean SHOWN under the profile `icc`, as an image of four columns."""
    shown = Image.new("RGB", (32, 8))
    for column, color in enumerate(SHOWN):
        shown.paste(color, (8 * column, 0, 8 * column + 8, 8))
    opened = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(shown, ImageCms.createProfile("sRGB"), opened, outputMode="RGB")


def assert_shows(pixels, tolerance=2.5):
    for column, color in enumerate(SHOWN):
        found = pixels[:, 4, 8 * column + 4] * 255
        torch.testing.assert_close(found, torch.tensor(color).float(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("primaries", [P3, ADOBE, PROPHOTO], ids=["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_wide_gamuts_become_srgb(tmp_path, primaries, suffix):
    icc = rgb(primaries)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    stored(icc).save(tmp_path / f"a.{suffix}", icc_profile=icc, **options)
    found = read_image(tmp_path / f"a.{suffix}")
    assert_shows(found.pixels, 4 if suffix == "jpg" else 2.5)
    assert found.remarks == ()


def test_a_profile_acts_in_palettes_and_under_transparency(tmp_path):
    icc = rgb(P3)
    stored(icc).quantize(8).save(tmp_path / "palette.png", icc_profile=icc)
    clear = stored(icc).convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 255))
    clear.save(tmp_path / "alpha.png", icc_profile=icc)
    for name in ("palette.png", "alpha.png"):
        assert_shows(load_image(tmp_path / name))


def test_what_is_srgb_already_is_not_touched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "tagged.png", icc_profile=own)
    for name in ("plain.png", "tagged.png"):
        assert torch.equal(load_image(tmp_path / name), torch.from_numpy(pixels).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("depth", [8, 16])
def test_gray_of_another_gamma_becomes_srgb(tmp_path, depth):
    """Linear gray: 0.2140 of the light is a half in sRGB."""
    top = 2**depth - 1
    pixels = np.full((8, 8), round(0.2140 * top), np.uint8 if depth == 8 else np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile(b"GRAY", kTRC=curve(1)))
    torch.testing.assert_close(load_image(tmp_path / "a.png"), torch.full((3, 8, 8), 0.5), atol=0.006, rtol=0)


def test_gray_of_16_bits_stays_as_precise_under_a_profile(tmp_path):
    ramp = np.linspace(20000, 40000, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "a.png", icc_profile=profile(b"GRAY", kTRC=curve(1.8)))
    assert len(load_image(tmp_path / "a.png")[0].unique()) > 3000


def cmyk():
    """A printer's profile: a table of two points an axis, from ink to Lab, whose cyan is a known green-blue."""
    inks = np.array(np.meshgrid(*[(0, 1)] * 4, indexing="ij")).reshape(4, -1).T
    light = np.array([1 - 0.5 * inks[:, 0] - 0.3 * inks[:, 1] - 0.1 * inks[:, 2]]).T * (1 - inks[:, 3:])
    lab = np.concatenate([light * 100, -40 * inks[:, :1] * (1 - inks[:, 3:]), 0 * inks[:, :1]], 1)
    coded = np.stack([lab[:, 0] / 100 * 65280, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], 1).clip(0, 65535)
    linear = struct.pack(">2H", 0, 65535)
    table = b"mft2" + bytes(4) + bytes([4, 3, 2, 0]) + b"".join(map(fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1))) + struct.pack(">2H", 2, 2)
    table += 4 * linear + coded.round().astype(">u2").tobytes() + 3 * linear
    return profile(b"CMYK", b"prtr", A2B0=table).replace(b"CMYKXYZ ", b"CMYKLab ", 1)


def test_cmyk_becomes_srgb_by_its_profile(tmp_path):
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    ink.save(tmp_path / "plain.tif")
    ink.save(tmp_path / "tagged.tif", icc_profile=cmyk())
    lab = ImageCms.createProfile("LAB")
    cyan = Image.new("LAB", (8, 8), (round(50 * 2.55), 128 - 40, 128))
    expected = np.asarray(ImageCms.profileToProfile(cyan, lab, ImageCms.createProfile("sRGB"), outputMode="RGB"))[0, 0]
    found = read_image(tmp_path / "tagged.tif")
    torch.testing.assert_close(found.pixels[:, 0, 0] * 255, torch.tensor(expected).float(), atol=6, rtol=0)
    assert torch.equal(load_image(tmp_path / "plain.tif")[:, 0, 0], torch.tensor([0.0, 1, 1])) and found.remarks == ()


def test_lab_is_read(tmp_path):
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), SHOWN[0]), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    torch.testing.assert_close(load_image(tmp_path / "a.tif")[:, 0, 0] * 255, torch.tensor(SHOWN[0]).float(), atol=3, rtol=0)


def test_a_cameras_adobe_rgb_without_a_profile_becomes_srgb(tmp_path):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    stored(rgb(ADOBE, 2.19921875)).save(tmp_path / "_a.jpg", exif=exif, quality=100, subsampling=0)
    assert_shows(load_image(tmp_path / "_a.jpg"), 4)


@pytest.mark.parametrize("icc", [b"no profile", rgb(P3)[:150], b"", profile(b"CMYK"), cmyk()])
def test_a_profile_that_cannot_be_used_is_named_and_the_image_is_read(tmp_path, icc):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=icc)
    found = read_image(tmp_path / "a.png")
    assert torch.equal(found.pixels, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert not icc or found.remarks[0].startswith("its color profile cannot be used (")


def test_training_and_evaluation_read_by_the_profile_too(tmp_path):
    icc, file = rgb(P3), io.BytesIO()
    stored(icc).save(tmp_path / "a.png", icc_profile=icc)
    stored(icc).save(file, "PNG", icc_profile=icc)
    with ShardWriter(tmp_path / "shards" / "a.tar") as shard:
        shard.add("a", {"hq.png": file.getvalue()}, {})
    for folder in (tmp_path, tmp_path / "shards"):
        assert_shows(ImageSource(folder)[0].hq)
