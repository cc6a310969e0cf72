"""Choose Yourself, My Taste and the study's page in a headless Chromium, by real clicks and keys.

What the screen shows at a question and at a pair is kept in output/browser.
"""

import json
import time
from collections import Counter

import numpy as np
import pytest
from comfyui_fluxir.demo.comfyui import ComfyUIServer
from comfyui_fluxir.demo.environment import NEWEST, browser_path, can_install_browser, comfyui_path
from comfyui_fluxir.tools.frontend import READY, VIEW, WATCH, opened, settings
from comfyui_fluxir.training.cli import main
from PIL import Image

from ..hosts.choice_host import COLORS, call, choosing
from ..hosts.workflow_host import PACK, free_port

CANVASES = ("classic", "nodes 2.0")
SCREENSHOTS = PACK / "output" / "browser"
DIALOG, CANDIDATES = "dialog.fluxir-choice", "dialog.fluxir-choice button.view"

# The mean color of an image, once it is loaded.
MEAN = """async img => {
  await img.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d");
  pen.drawImage(img, 0, 0, 1, 1);
  return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3));
}"""

# Where a widget of the classic canvas is on the screen.
WIDGET = """([kind, name]) => {
  const node = app.graph.nodes.find(node => node.type === kind), widget = node.widgets.find(widget => widget.name === name);
  const { scale, offset } = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
  const at = (axis, inside) => (node.pos[axis] + inside + offset[axis]) * scale;
  return [canvas.x + at(0, node.size[0] / 2), canvas.y + at(1, (widget.y ?? widget.last_y) + 10)];
}"""


@pytest.fixture(scope="module")
def chromium():
    found = browser_path()
    if found is None:
        (pytest.fail if can_install_browser() else pytest.skip)("no Chromium on this machine; install chromium.")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("choose")
    settings(base)
    with ComfyUIServer(comfyui_path(NEWEST), base, free_port()) as running:
        yield running


# Of this module, not of the session: Playwright's loop would keep later tests from running their own.
@pytest.fixture(scope="module")
def frontend(server, chromium, tmp_path_factory):
    with opened(server.url, chromium, tmp_path_factory.mktemp("profile")) as page:
        page.page.set_default_timeout(60_000)
        yield page


@pytest.fixture(autouse=True)
def calm(server):
    """Ends what a test has left open, so that one failure is not the next test's."""
    yield
    queue = server.get("/queue")
    if queue["queue_running"] or queue["queue_pending"]:
        call(server, "/queue", {"clear": True})
        call(server, "/interrupt", {})
        for _ in range(100):
            if not server.get("/queue")["queue_running"]:
                return
            time.sleep(0.1)


@pytest.fixture(params=CANVASES)
def canvas(frontend, request):
    frontend.use_canvas(request.param)
    yield request.param
    frontend.use_canvas("nodes 2.0")


def start(frontend, **inputs):
    """Queues a graph that asks, by its Run button; returns when the question is on the screen."""
    frontend.page.evaluate("graph => app.loadApiJson(graph, 'choosing')", choosing(**inputs))
    frontend.page.evaluate(WATCH)
    frontend.page.get_by_test_id("queue-button").click()
    frontend.page.locator(DIALOG).wait_for()


def candidates(page):
    """{color: the candidate's button} of what is on the screen, after the moment in which nothing is taken."""
    page.wait_for_timeout(600)
    found = {}
    for view in page.locator(CANDIDATES).all():
        mean = view.locator("img").evaluate(MEAN)
        found[max(COLORS, key=lambda name: mean[list(COLORS).index(name)])] = view
    return found


def ended(frontend):
    """How the run ended; the question has left the screen."""
    frontend.page.wait_for_function("watched.some(event => event.what.startsWith('execution'))", timeout=60_000)
    frontend.page.locator(DIALOG).wait_for(state="detached")
    return next(event["what"] for event in frontend.page.evaluate("watched") if event["what"].startswith("execution"))


def chosen(server):
    """The color of the image that was saved last."""
    newest = max((server.base / "output").glob("chosen*.png"), key=lambda path: path.stat().st_mtime_ns)
    with Image.open(newest) as image:
        mean = np.asarray(image.convert("RGB"), int).mean((0, 1))
    return max(COLORS, key=lambda name: mean[list(COLORS).index(name)])


@pytest.mark.parametrize("wanted", ["green", "blue"])
def test_a_click_on_a_candidate_chooses_it(frontend, server, canvas, wanted):
    start(frontend)
    shown = candidates(frontend.page)
    assert shown.keys() == COLORS.keys()
    frontend.page.screenshot(path=SCREENSHOTS / f"question {canvas}.png")
    boxes = [view.bounding_box() for view in shown.values()]
    degraded = frontend.page.locator(f"{DIALOG} div.view").bounding_box()
    # Large, beside the degraded image: the four fill the screen.
    assert all(box["width"] > 0.45 * VIEW["width"] and box["height"] > 0.4 * VIEW["height"] for box in [*boxes, degraded])
    shown[wanted].click()
    assert ended(frontend) == "execution_success" and chosen(server) == wanted


def test_a_number_key_chooses(frontend, server):
    start(frontend)
    number = int(candidates(frontend.page)["blue"].get_attribute("data-candidate"))
    frontend.page.keyboard.press(str(number + 1))
    assert ended(frontend) == "execution_success" and chosen(server) == "blue"


def test_clicks_in_order_make_a_ranking(frontend, server):
    start(frontend, ask_for="a ranking")
    shown = candidates(frontend.page)
    for name in ("red", "green"):
        shown[name].click()
    assert shown["green"].locator("xpath=..").inner_text().strip() == "2."
    shown["red"].click()  # taken back: green is now the first
    assert shown["green"].locator("xpath=..").inner_text().strip() == "1."
    frontend.page.keyboard.press("Enter")
    assert ended(frontend) == "execution_success" and chosen(server) == "green"


def test_a_reload_finds_the_open_question_again(frontend, server):
    start(frontend)
    question = frontend.page.locator(DIALOG).get_attribute("data-question")
    frontend.page.reload()
    frontend.page.locator(DIALOG).wait_for(timeout=60_000)
    assert frontend.page.locator(DIALOG).get_attribute("data-question") == question
    frontend.page.wait_for_function(READY, timeout=120_000)
    frontend.page.evaluate(WATCH)
    candidates(frontend.page)["green"].click()
    assert ended(frontend) == "execution_success" and chosen(server) == "green"


def test_another_browser_is_not_asked(frontend, server):
    other = frontend.page.context.browser or frontend.page.context
    page = other.new_page()
    try:
        page.goto(server.url)
        page.wait_for_function(READY, timeout=120_000)
        frontend.page.bring_to_front()
        assert page.evaluate("app.api.clientId") != frontend.page.evaluate("app.api.clientId")
        start(frontend)
        page.wait_for_timeout(1500)
        assert page.locator(DIALOG).count() == 0
        candidates(frontend.page)["red"].click()
        assert ended(frontend) == "execution_success" and chosen(server) == "red"
    finally:
        page.close()


def test_cancel_ends_the_run(frontend, canvas):
    start(frontend)
    frontend.page.locator(f"{DIALOG} .fluxir-cancel").click()
    assert ended(frontend) == "execution_interrupted"


def test_keys_meant_for_something_else_choose_and_hide_nothing_and_the_verifier_can_be_asked_to_choose(frontend, server):
    start(frontend)
    frontend.page.wait_for_timeout(600)  # what comes sooner was meant for something else in any case
    for key in ("Enter", " ", "Escape", "Escape", "Escape"):  # Chromium lets a dialog refuse the first Escape only
        frontend.page.keyboard.press(key)
    frontend.page.wait_for_timeout(500)
    assert frontend.page.locator(DIALOG).is_visible()
    frontend.page.locator(f"{DIALOG} .fluxir-skip").click()
    assert ended(frontend) == "execution_success"


def test_all_images_are_enlarged_at_the_same_place(frontend):
    start(frontend)
    frontend.page.keyboard.press("z")
    candidates(frontend.page)["red"].hover(position={"x": 10, "y": 10})
    origins = frontend.page.locator(f"{DIALOG} img").evaluate_all("all => all.map(img => img.style.transformOrigin)")
    assert len(origins) == 4 and len(set(origins)) == 1 and origins[0]
    assert frontend.page.locator(f"{DIALOG}.zoomed").count() == 1
    frontend.page.locator(f"{DIALOG} .fluxir-cancel").click()
    ended(frontend)


def test_the_question_is_asked_in_the_frontends_language(frontend):
    frontend.page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'zh')")
    try:
        start(frontend)
        assert "哪张最好" in frontend.page.locator(DIALOG).inner_text()
        frontend.page.locator(f"{DIALOG} .fluxir-cancel").click()
        ended(frontend)
    finally:
        frontend.page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")


def test_kept_choices_are_deleted_by_one_button_after_a_question(frontend, server, canvas):
    kept = server.base / "user" / "default" / "fluxir" / "choices.jsonl"
    start(frontend, keep_choices=True)
    candidates(frontend.page)["red"].click()
    ended(frontend)
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 1
    for answer in ("Cancel", "Delete"):
        if canvas == "classic":
            frontend.page.get_by_label("Fit View").click()
            frontend.page.wait_for_timeout(1000)
            frontend.page.mouse.click(*frontend.page.evaluate(WIDGET, ["FluxIRChooseYourself", "delete_choices"]))
        else:
            frontend.page.get_by_role("button", name="Delete my choices").click()
        dialog = frontend.page.get_by_role("dialog").filter(has_text="Delete my choices?")
        dialog.get_by_text("Deletes what My Taste learned from: 1 choice(s). This cannot be undone.").wait_for()
        dialog.get_by_role("button", name=answer).click()
        dialog.wait_for(state="detached")
        frontend.page.wait_for_timeout(500)
        assert kept.exists() == (answer == "Cancel")


def test_the_button_leaves_the_graphs_file_alone(frontend):
    frontend.page.evaluate("graph => app.loadApiJson(graph, 'choosing')", choosing(keep_choices=True))
    values = frontend.page.evaluate("app.graph.serialize().nodes.find(node => node.type === 'FluxIRChooseYourself').widgets_values")
    inputs = frontend.page.evaluate("app.graphToPrompt().then(({ output }) => output.choose?.inputs ?? Object.values(output))")
    assert values[:3] == ["the best", 60, True] and len([value for value in values if value is not None]) == 3
    assert "delete_choices" not in json.dumps(inputs)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of three methods on two images: red, green and blue."""
    monkeypatch.chdir(tmp_path)
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        for image in ("one", "two"):
            Image.new("RGB", (32, 24), tuple(color.to_bytes(3, "big"))).save(tmp_path / name / f"{image}.png")
    (tmp_path / "lq").mkdir()
    Image.new("RGB", (16, 12), "gray").save(tmp_path / "lq" / "one.png")
    main(["study", *COLORS, "--degraded", "lq"])
    return tmp_path / "study.html"


@pytest.fixture
def visitor(frontend, study):
    """A page on the study's file; nothing else is loaded."""
    page = frontend.page.context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(study.as_uri())
    yield page
    page.close()
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def sides(page):
    """The colors on the left and on the right."""
    means = [page.locator(f"#{side} img").evaluate(MEAN) for side in ("left", "right")]
    return [max(COLORS, key=lambda name: mean[list(COLORS).index(name)]) for mean in means]


def save(page):
    with page.expect_download() as download:
        page.keyboard.press("s")
    return download.value.path().read_text(encoding="utf-8"), download.value.suggested_filename


def test_a_visitor_votes_by_keys_and_the_file_is_ranked(visitor, study, capsys):
    pairs = Counter()
    for _ in range(6):
        left, right = sides(visitor)
        pairs[frozenset((left, right))] += 1
        best = min(left, right, key=list(COLORS).index)  # red before green before blue
        visitor.keyboard.press("ArrowLeft" if best == left else "ArrowRight")
    assert set(pairs.values()) == {2} and len(pairs) == 3
    assert visitor.locator("#end").is_visible()
    text, name = save(visitor)
    (study.parent / name).write_text(text, encoding="utf-8")
    capsys.readouterr()
    main(["study", "fit", str(study.parent / name), "--json", str(study.parent / "ranking.json")])
    rows = json.loads((study.parent / "ranking.json").read_text(encoding="utf-8"))
    assert [(row["method"], row["best"], row["best_two"]) for row in rows] == [("red", 1, 1), ("green", 0, 1), ("blue", 0, 0)]


def test_the_page_shows_no_names_and_is_another_for_every_visitor(frontend, study):
    orders = []
    for _ in range(6):
        page = frontend.page.context.new_page()
        page.goto(study.as_uri())
        page.evaluate("localStorage.clear()")
        page.reload()
        shown = page.locator("body").inner_text().lower()
        assert not any(name in shown for name in COLORS)
        orders.append(page.evaluate("JSON.stringify(state.pairs)"))
        page.close()
    assert len(set(orders)) > 1


def test_a_click_chooses_a_mistake_is_taken_back_and_a_reload_goes_on(visitor):
    visitor.evaluate("localStorage.clear()")
    visitor.reload()
    first = sides(visitor)
    visitor.locator("#left").click()
    visitor.keyboard.press("ArrowDown")
    assert visitor.locator("#count").inner_text() == "3 of 6"
    visitor.keyboard.press("Backspace")
    visitor.reload()
    assert visitor.locator("#count").inner_text() == "2 of 6"
    visitor.keyboard.press("ArrowDown")
    votes = json.loads(save(visitor)[0])["votes"]
    assert [vote["choice"] for vote in votes] == ["left", "tie"] and [votes[0]["left"], votes[0]["right"]] == first


def test_the_degraded_image_stands_between_where_there_is_one(visitor):
    seen = {}
    visitor.evaluate("localStorage.clear()")
    visitor.reload()
    for _ in range(6):
        name = visitor.evaluate("study.images[state.pairs[state.choices.length][0]].name")
        seen[name] = visitor.locator("#before").is_visible()
        if seen[name]:
            boxes = [visitor.locator(f"#{part}").bounding_box()["x"] for part in ("left", "before", "right")]
            assert boxes == sorted(boxes)
            visitor.screenshot(path=SCREENSHOTS / "study.png")
        visitor.keyboard.press("ArrowDown")
    assert seen == {"one": True, "two": False}
