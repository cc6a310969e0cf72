"""CIELAB, and colors that sRGB does not have."""

import torch
from comfyui_fluxir.fluxir_core.image.cielab import from_lab, into_gamut, to_lab


def test_cielab_is_that_of_a_library():
    from skimage.color import rgb2lab

    colors = torch.rand(1, 3, 50, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    colors[..., :5] *= 0.03
    lab = to_lab(colors)[0].movedim(0, -1) * 100
    assert abs(lab.numpy() - rgb2lab(colors[0].movedim(0, -1).numpy())).max() < 0.01
    assert torch.allclose(from_lab(to_lab(colors)), colors, atol=1e-5)
    assert to_lab(torch.rand(1, 1, 9, 9).expand(-1, 3, -1, -1))[:, 1:].abs().max() < 1e-5


def test_gamut_mapping_keeps_hue_and_luma_and_does_not_touch_what_is_inside():
    colors = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    mapped, inside = into_gamut(colors), ((colors >= 0) & (colors <= 1)).all(1, keepdim=True).expand(-1, 3, -1, -1)
    luma = [0.2126729 * p[:, 0] + 0.7151522 * p[:, 1] + 0.0721750 * p[:, 2] for p in (mapped, colors)]
    assert 0 <= mapped.min() and mapped.max() <= 1 and torch.equal(mapped[inside], colors[inside])
    assert torch.allclose(luma[0], luma[1].clamp(0, 1), atol=1e-5)
    ranks, kept = colors.sort(1).values.diff(dim=1), mapped.sort(1).values.diff(dim=1)
    assert torch.allclose(ranks[:, 0] * kept[:, 1], ranks[:, 1] * kept[:, 0], atol=1e-5)  # the hue of HSV
