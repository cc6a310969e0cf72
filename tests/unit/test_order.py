"""The suite's own order: what is quick and tells most comes first, and a failure is seen when it happens."""

from pathlib import Path

pytest_plugins = ["pytester"]
CONFTEST = (Path(__file__).resolve().parents[1] / "conftest.py").read_text(encoding="utf-8")
TESTS = {
    "browser/test_a.py": "def test_clicks(): pass",
    "hosts/test_b.py": "import pytest\n@pytest.mark.slow\ndef test_long(): pass\ndef test_host(): pass",
    "other/test_d.py": "def test_other(): pass",
    "unit/test_c.py": "def test_fails():\n    assert 1 + 1 == 3\ndef test_unit(): pass",
}


def write_suite(pytester):
    pytester.makeini("[pytest]\nmarkers =\n    browser\n    slow\n    full\n")
    pytester.makeconftest(CONFTEST)
    for name, text in TESTS.items():
        path = pytester.path / name
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")


def test_unit_tests_run_before_hosts_before_the_browser_before_what_is_slow(pytester):
    write_suite(pytester)
    listed = pytester.runpytest_inprocess("--collect-only", "-q").outlines
    assert [line.split("::")[-1] for line in listed if "::" in line] == [
        "test_fails", "test_unit", "test_host", "test_other", "test_clicks", "test_long",
    ]  # fmt: skip


def test_tests_in_the_browser_are_marked(pytester):
    write_suite(pytester)
    listed = pytester.runpytest_inprocess("--collect-only", "-q", "-m", "browser").outlines
    assert [line for line in listed if "::" in line] == ["browser/test_a.py::test_clicks"]


def test_a_failure_is_seen_before_the_next_test(pytester):
    write_suite(pytester)
    lines = pytester.runpytest_inprocess("-v").outlines
    (failure,) = (
        i for i, line in enumerate(lines) if line.startswith("FAILED unit/test_c.py::test_fails (call): assert (1 + 1) == 3")
    )
    assert failure < next(i for i, line in enumerate(lines) if "test_unit PASSED" in line)
