"""The README's tables come from measured rows, and the gates can fail."""

import pytest

from comfyui_fluxir.training.miniature.evaluate import gates, mean_over_photos
from comfyui_fluxir.training.results import replace_block


def rows(restored, gmsd=0.1):
    measured = {"degraded": 12.0, "restored": restored, "adapter off": 9.0, "shuffled": 10.0, "ceiling": 25.0}
    return [
        {"degradation": "strong", "photo": photo, "method": method, "psnr": psnr + offset, "ssim": 0.5,
         "gmsd": gmsd if method == "restored" else 0.2}
        for photo, offset in (("cat", 0.5), ("dog", -0.5))
        for method, psnr in measured.items()
    ]  # fmt: skip


def test_means_are_over_the_photos_of_one_method():
    assert mean_over_photos(rows(15.0), "strong", "restored", "psnr") == pytest.approx(15.0)


def test_a_good_restoration_passes_every_gate():
    assert all(passed for _, passed in gates(rows(15.0)).values())


@pytest.mark.parametrize(
    ("restored", "gmsd", "missed"),
    [(12.5, 0.1, {"shuffled", "degraded"}), (11.5, 0.1, {"adapter off", "shuffled", "degraded"}), (15.0, 0.3, {"GMSD"})],
)
def test_a_poor_one_misses_the_gates_it_should(restored, gmsd, missed):
    failed = [gate for gate, (_, passed) in gates(rows(restored, gmsd)).items() if not passed]
    assert len(failed) == len(missed)
    assert all(any(word in gate for gate in failed) for word in missed)


def test_a_table_replaces_its_own_block_only(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- results: one -->\n<!-- end -->\nb\n<!-- results: two -->\nkept\n<!-- end -->\n")
    for _ in range(2):  # writing twice is writing once
        replace_block(readme, "one", "new \\1 | table")
    assert readme.read_text() == (
        "a\n<!-- results: one -->\nnew \\1 | table\n<!-- end -->\nb\n<!-- results: two -->\nkept\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no block `<!-- results: three -->`"):
        replace_block(readme, "three", "table")
