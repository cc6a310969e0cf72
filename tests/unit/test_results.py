"""The tables of docs/results come from measured rows, and the gates can fail."""

import argparse
import re

import pytest
from comfyui_fluxir.training.commands import results
from comfyui_fluxir.training.commands.results import replace_block
from comfyui_fluxir.training.miniature.evaluate import gates, mean_over_photos
from comfyui_fluxir.training.studies.bench_few_steps import few_step_gates, few_step_table


def rows(restored, gmsd=0.1):
    measured = {"degraded": 12.0, "restored": restored, "adapter off": 9.0, "shuffled": 10.0, "ceiling": 25.0}
    return [
        {
            "degradation": "strong",
            "photo": photo,
            "method": method,
            "psnr": psnr + offset,
            "ssim": 0.5,
            "gmsd": gmsd if method == "restored" else 0.2,
        }
        for photo, offset in (("cat", 0.5), ("dog", -0.5))
        for method, psnr in measured.items()
    ]


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
