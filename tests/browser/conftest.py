"""ComfyUI's own frontend in a headless Chromium: that of the newest supported ComfyUI, and the newest that there is.

What the screen shows at the end of each test is kept in output/browser.
"""

import re

import pytest
from comfyui_fluxir.demo.comfyui import ComfyUIServer
from comfyui_fluxir.demo.environment import FRONTEND, NEWEST, browser_path, can_install_browser, comfyui_path, frontend_path
from comfyui_fluxir.tools.frontend import READY, opened, settings

from ..hosts.workflow_host import PACK, free_port, stock

CANVASES = ("classic", "nodes 2.0")
SCREENSHOTS = PACK / "output" / "browser"
SIGNS = r"[^\w.-]+"


@pytest.fixture(scope="module", params=[None, FRONTEND], ids=["its own frontend", FRONTEND])
def version(request):
    """The frontend: None for that of the newest ComfyUI, or the newest that there is."""
    return request.param


@pytest.fixture(scope="module")
def base(tmp_path_factory, version):
    """The server's base folder."""
    folder = tmp_path_factory.mktemp("browser")
    stock(folder, tmp_path_factory.mktemp("weights"))
    settings(folder)
    return folder


# Of this module, not of the session: Playwright's loop would keep later tests from running their own.
@pytest.fixture(scope="module")
def frontend(base, version, tmp_path_factory):
    chromium = browser_path()
    if chromium is None:
        # Where make installs one, its absence is a failure.
        (pytest.fail if can_install_browser() else pytest.skip)("no Chromium on this machine; install chromium.")
    with (
        ComfyUIServer(comfyui_path(NEWEST), base, free_port(), version and frontend_path()) as server,
        opened(server.url, chromium, tmp_path_factory.mktemp("profile")) as page,
    ):
        yield page


@pytest.fixture(autouse=True)
def screenshot(frontend, request):
    """Keeps what the screen shows at the end of each test, and leaves no dialog to the next."""
    yield
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    frontend.page.screenshot(path=SCREENSHOTS / f"{re.sub(SIGNS, '-', request.node.name)}.png")
    frontend.page.keyboard.press("Escape")


@pytest.fixture
def in_chinese(frontend):
    speak(frontend, "zh")
    yield
    speak(frontend, "en")


def speak(frontend, language):
    frontend.page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
    frontend.page.reload()
    frontend.page.wait_for_function(READY, timeout=120_000)


@pytest.fixture(params=CANVASES)
def canvas(frontend, request):
    frontend.use_canvas(request.param)
    yield request.param
    frontend.use_canvas("nodes 2.0")
