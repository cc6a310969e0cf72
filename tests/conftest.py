"""The order of all tests, and a line for each failure as it happens: a mistake shows in the first two minutes."""

from pathlib import Path

import pytest

RANKS = {"unit": 0, "browser": 2}
"""Of the folders; all others, where ComfyUI and diffusers are, come between."""
LAST = 3
TESTS = Path(__file__).resolve().parent


def rank(item):
    """Where `item` belongs: unit tests, real hosts, the browser, and what takes minutes."""
    if item.get_closest_marker("slow") or item.get_closest_marker("full"):
        return LAST
    return RANKS.get(Path(item.path).relative_to(TESTS).parts[0], 1)


@pytest.hookimpl(trylast=True)  # pytest itself has then put those together that share a server
def pytest_collection_modifyitems(items):
    items.sort(key=rank)


def pytest_itemcollected(item):
    if Path(item.path).is_relative_to(TESTS / "browser"):
        item.add_marker("browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    terminal = item.config.pluginmanager.get_plugin("terminalreporter")
    if report.failed and terminal:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message.splitlines()[0] if crash and crash.message else report.longreprtext.splitlines()[-1]
        terminal.write_line(f"\nFAILED {item.nodeid} ({report.when}): {reason}", red=True)
    return report
