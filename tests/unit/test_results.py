"""The tables of docs/results come from measured rows, and the gates can fail."""

import argparse
import re

import pytest
from comfyui_fluxir.training.commands import results
from comfyui_fluxir.training.commands.results import replace_block
from comfyui_fluxir.training.miniature.evaluate import gates, mean_over_photos, spread_over_seeds
from comfyui_fluxir.training.studies.bench_few_steps import few_step_gates, few_step_table


def rows(restored, gmsd=0.1, degradation="strong", spread=0.0, given_back=None):
    fixed = {"degraded": 12.0, "autoencoder alone": 11.0, "peer": 13.0, "ceiling": 25.0}
    drawn = {"restored": restored, "with give-back": given_back or restored, "adapter off": 8.0, "shuffled": 8.8, "one step": 14.0}

    def row(photo, method, psnr, seed):
        own = gmsd if method in ("restored", "with give-back") else 0.2
        ssim = 0.6 if method == "restored" else 0.5
        measured = {"psnr": psnr, "ssim": ssim, "gmsd": own, "tone": 1.0, "detail": 2.0}
        return {"degradation": degradation, "photo": photo, "method": method, "seed": seed, **measured}

    found = []
    for photo, offset in (("cat", 0.5), ("dog", -0.5)):
        found += [row(photo, method, psnr + offset, None) for method, psnr in fixed.items()]
        found += [
            row(photo, m, psnr + offset + own, i) for m, psnr in drawn.items() for i, own in enumerate((-spread / 2, spread / 2))
        ]
    return found


def test_means_are_over_the_photos_and_seeds_of_one_method():
    assert mean_over_photos(rows(15.0, spread=2.0), "strong", "restored", "psnr") == pytest.approx(15.0)


def test_the_spread_is_of_the_seeds_and_not_of_the_photos():
    assert spread_over_seeds(rows(15.0, spread=0.3), "strong") == pytest.approx(0.3)


@pytest.mark.parametrize("degradation", ["strong", "jpeg", "noise"])
def test_a_good_restoration_passes_every_gate(degradation):
    assert all(passed for _, passed in gates(rows(15.0, degradation=degradation)).values())


@pytest.mark.parametrize(
    ("made", "missed"),
    [
        (rows(11.9), {"at least 1 dB"}),
        (rows(11.5), {"shuffled", "at least 1 dB"}),
        (rows(15.0, gmsd=0.3), {"GMSD of restored below the autoencoder"}),
        (rows(15.0, spread=0.5), {"seeds within 0.4 dB"}),
        (rows(10.9, degradation="jpeg"), {"adapter off", "shuffled", "with give-back over degraded"}),
        (rows(12.5, degradation="jpeg", given_back=11.9), {"with give-back over degraded"}),
        (rows(12.5, gmsd=0.3, degradation="noise"), {"GMSD of restored below the autoencoder", "GMSD of restored below OpenCV"}),
    ],
)
def test_a_poor_one_misses_the_gates_it_should(made, missed):
    failed = [gate for gate, (_, passed) in gates(made).items() if not passed]
    assert len(failed) == len(missed)
    assert all(any(word in gate for gate in failed) for word in missed)


def test_a_table_replaces_its_own_block_only(tmp_path):
    page = tmp_path / "one.md"
    page.write_text("a\n<!-- results: one -->\n<!-- end -->\nb\n<!-- results: two -->\nkept\n<!-- end -->\n", encoding="utf-8")
    for _ in range(2):  # writing twice is writing once
        replace_block(page, "one", "new \\1 | table")
    assert page.read_text(encoding="utf-8") == (
        "a\n<!-- results: one -->\nnew \\1 | table\n<!-- end -->\nb\n<!-- results: two -->\nkept\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="no block `<!-- results: three -->`"):
        replace_block(page, "three", "table")
    with pytest.raises(ValueError, match=r"--page: .*two\.md cannot be read; run this in the repository"):
        replace_block(tmp_path / "two.md", "two", "table")


def test_every_table_has_a_page_of_its_own():
    parser = argparse.ArgumentParser()
    results.add_arguments(parser)
    (tables,) = (action.choices for action in parser._actions if action.dest == "table")
    pages = {page.stem for page in results.PAGES.glob("*.md")} - {"README"}
    assert pages == set(tables)
    for name in tables:
        page = (results.PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"<!-- results: (\S+) -->\n.+?<!-- end -->", page, re.S) == [name]


def fast_rows(**psnr):
    methods = {"degraded": 10.0, "teacher": 20.0, "reinforced": 20.5, "student, 2 optimal": 20.2}
    methods |= {f"student, {n} optimal": 20.0 + n / 10 for n in (1, 4)} | {f"student, {n} uniform": 19.0 for n in (1, 2, 4)}
    methods |= {f"not distilled, {n} {kind}": value for n in (1, 2, 4) for kind, value in (("uniform", 18.0), ("optimal", 18.5))}
    return [
        {
            "task": task,
            "photo": "cat",
            "method": method.replace("_", " "),
            "nfe": 4,
            "seconds": 1.0,
            "psnr": value + offset,
            "ssim": 0.5,
            "gmsd": 0.1,
        }
        for task, offset in (("snow", 1.0), ("rain", -1.0))
        for method, value in (methods | psnr).items()
    ]


def test_a_fast_student_that_is_as_good_passes_every_goal():
    goals = few_step_gates(fast_rows())
    assert len(goals) == 8 and all(reached for _, reached in goals.values())
    assert goals["reinforced over teacher, above 0 dB"][0] == pytest.approx(0.5)
    assert goals["not distilled, 2 optimal over uniform, above 0 dB"][0] == pytest.approx(0.5)
    assert "| student, 4 optimal | 20.40 | 0.500 | 0.100 | 4 | 1.00 |" in few_step_table(fast_rows())


@pytest.mark.parametrize(
    ("psnr", "missed"),
    [({"teacher": 21.0}, {"reinforced over", "at 4 optimal steps"}), ({"student, 2 uniform": 20.3}, {"student, 2 optimal over"})],
)
def test_a_poor_one_misses_the_goals_it_should(psnr, missed):
    failed = [goal for goal, (_, reached) in few_step_gates(fast_rows(**psnr)).items() if not reached]
    assert len(failed) == len(missed) and all(any(word in goal for goal in failed) for word in missed)
