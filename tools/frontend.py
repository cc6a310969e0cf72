"""ComfyUI's own frontend in a headless Chromium, used as an artist uses it."""

import base64
import io
import json
from contextlib import contextmanager, suppress
from typing import Any

from PIL import Image

VIEW: Any = {"width": 1600, "height": 1000}


FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Nodes 2.0, whose images are elements of the page. The tour of a first start and the minimap would cover the graph.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": True, "Comfy.Minimap.Visible": False}


# The page opens its last graph after the rest is ready, and would put it over one that is loaded before.
READY = "window.app?.vueAppReady && app.extensionManager.workflow.activeWorkflow"


# What happens in a run, in order: its end, and every image that an element of a node shows.
WATCH = """() => {
  window.watched = [];
  window.watcher?.disconnect();
  const known = new Set(Array.from(document.querySelectorAll("[data-node-id] img"), img => img.src));
  window.watcher = new MutationObserver(() => {
    for (const img of document.querySelectorAll("[data-node-id] img")) {
      if (known.has(img.src)) continue;
      known.add(img.src);
      watched.push({ what: "image", node: img.closest("[data-node-id]").dataset.nodeId });
    }
  });
  window.watcher.observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["src"] });
  for (const what of ["execution_success", "execution_error", "execution_interrupted"]) {
    app.api.addEventListener(what, event => watched.push({ what, detail: JSON.stringify(event.detail) }), { once: true });
  }
}"""


UNKNOWN_NODES = "() => app.graph.nodes.map(node => node.type).filter(type => !(type in LiteGraph.registered_node_types))"


PIXELS = """img => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
  canvas.getContext("2d").drawImage(img, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""


# [id, left, top, right, bottom] of every node as it is drawn, in the graph's own pixels.
BOXES = """modern => {
  if (!modern) return app.graph.nodes.map(node => {
    const [width, height] = node.computeSize(), [left, top] = node.pos;
    const [right, bottom] = [left + Math.max(width, node.size[0]), top + Math.max(height, node.size[1])];
    return [String(node.id), left, top - LiteGraph.NODE_TITLE_HEIGHT, right, bottom];
  });
  const { scale, offset } = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
  return Array.from(document.querySelectorAll("[data-node-id]"), node => {
    const { left, top, right, bottom } = node.getBoundingClientRect();
    const across = x => (x - canvas.x) / scale - offset[0], down = y => (y - canvas.y) / scale - offset[1];
    return [node.dataset.nodeId, across(left), down(top), across(right), down(bottom)];
  });
}"""


# The paths that the frontend has drawn last, of links and of reroutes, on a canvas of each node's size.
BEHIND = """boxes => {
  const INSIDE = 22; // where the classic canvas puts the slots
  const parts = [...app.graph.links.values(), ...app.graph.reroutes.values()];
  if (parts.some(part => !part.path)) throw "a wire is not drawn";
  return boxes.flatMap(([node, left, top, right, bottom]) => {
    const [width, height] = [right - left - 2 * INSIDE, bottom - top - 8].map(side => Math.ceil(side / 2));
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    const crossed = paths => {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, width, height);
      context.setTransform(0.5, 0, 0, 0.5, -(left + INSIDE) / 2, -(top + 4) / 2);
      context.lineWidth = 3;
      for (const path of paths) context.stroke(path);
      return context.getImageData(0, 0, width, height).data.some(value => value > 60);
    };
    if (!crossed(parts.map(part => part.path))) return [];
    const kind = part => part.origin_id === undefined ? `reroute ${part.id}` : `link ${part.id} from ${part.origin_id} to ${part.target_id}`;
    return parts.filter(part => crossed([part.path])).map(part => `${kind(part)} behind node ${node}`);
  });
}"""


# Two images of one color each, and the node that compares them.
COMPARED = """view => {
  app.graph.clear();
  const add = (type, x, values) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [x, 0];
    for (const [name, value] of Object.entries(values)) node.widgets.find(widget => widget.name === name).value = value;
    return node;
  };
  const [red, green] = [0xff0000, 0x00ff00].map((color, i) => add("EmptyImage", 0, { width: 96, height: 64, color }));
  green.pos = [0, 300];
  const compared = add("FluxIRBeforeAndAfter", 500, { view });
  compared.setSize([400, 400]);
  red.connect(0, compared, 0);
  green.connect(0, compared, 1);
  return String(compared.id);
}"""


AREA = """id => {
  const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = [0, 1].map(axis => (node.pos[axis] + offset[axis]) * scale);
  return { x: canvas.x + x, y: canvas.y + y, width: node.size[0] * scale, height: node.size[1] * scale };
}"""


DRAWN = """text => {
  const context = new OffscreenCanvas(40, 40).getContext("2d", { willReadFrequently: true });
  context.font = `24px ${getComputedStyle(document.body).fontFamily}`;
  return [...text].map(letter => {
    context.clearRect(0, 0, 40, 40);
    context.fillText(letter, 4, 30);
    return Array.from(context.getImageData(0, 0, 40, 40).data.filter((_, i) => i % 4 === 3));
  });
}"""


AROUND = """photo => {
  const add = (type, x) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, 0];
    app.graph.add(node);
    return node;
  };
  const [restore] = app.graph.nodes;
  restore.pos = [400, 0];
  const load = add("LoadImage", 0);
  load.widgets.find(widget => widget.name === "image").value = photo;
  load.connect(0, restore, 0);
  restore.outputs.forEach((output, i) => restore.connect(i, add("SaveImage", 850 + 350 * i), 0));
  app.canvas.deselectAll();
}"""


@contextmanager
def opened(url, chromium, profile):
    """A Frontend on the ComfyUI at `url`, in the browser at `chromium` with a fresh `profile` folder."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=chromium, args=FLAGS, viewport=VIEW, reduced_motion="reduce"
        )
        page = context.pages[0]
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        yield Frontend(page)
        context.close()


class Frontend:
    """The page, and what an artist does on it."""

    def __init__(self, page):
        self.page = page

    def templates(self):
        """Opens the template browser at this pack's workflows. Returns their cards, all of them: more come as one scrolls."""
        self.page.get_by_label("Templates").click()
        self.page.get_by_role("dialog").get_by_role("button", name="comfyui-fluxir").click()
        cards = self.page.locator("[data-testid^=template-workflow-]")
        cards.first.wait_for()
        seen = 0
        while seen < (seen := cards.count()):
            cards.last.scroll_into_view_if_needed()
            self.page.wait_for_timeout(1000)
        return cards

    def load_template(self, name):
        self.templates()
        card, dialog = self.page.get_by_test_id(f"template-workflow-{name}"), self.page.get_by_role("dialog")
        self._until(lambda: card.click(timeout=5_000), lambda timeout: dialog.wait_for(state="detached", timeout=timeout))
        self.page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow.filename === name", arg=name)

    def load(self, graph, name):
        """Opens a graph (UI format), as dropping its file on the page does."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])

    def add_blueprint(self, name):
        """A new graph of the blueprint alone, found by its name in node search."""
        self.page.get_by_label("Create a new blank workflow").click()
        self.page.wait_for_function("app.graph.nodes.length === 0")
        box = self.page.get_by_role("combobox", name="Add a node...")
        middle = VIEW["width"] / 2, VIEW["height"] / 2
        self._until(lambda: self.page.mouse.dblclick(*middle), lambda timeout: box.wait_for(timeout=timeout))
        box.fill(name)
        found = self.page.get_by_role("option", name=name).first
        found.wait_for()
        self.page.keyboard.press("Enter")
        found.wait_for(state="detached")
        # It hangs on the pointer until it is put down.
        self.page.wait_for_function("app.graph.nodes[0]?.flags.ghost")
        self.page.mouse.click(*middle)
        self.page.wait_for_function("!app.graph.nodes[0].flags.ghost")

    def unknown_nodes(self):
        """Types of nodes in the graph that ComfyUI does not have."""
        return self.page.evaluate(UNKNOWN_NODES)

    def use_canvas(self, name):
        """Draws nodes in the canvas "classic" or "nodes 2.0"."""
        modern = name != "classic"
        self.page.evaluate("modern => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', modern)", modern)
        self.page.wait_for_function("modern => LiteGraph.vueNodesMode === modern", arg=modern)

    def overlaps(self, canvas="nodes 2.0"):
        """Pairs of nodes of which one covers a part of the other."""
        boxes = self.page.evaluate(BOXES, canvas != "classic")
        return [
            (a, b)
            for number, (a, left, top, right, bottom) in enumerate(boxes)
            for b, left2, top2, right2, bottom2 in boxes[number + 1 :]
            if left < right2 - 1 and left2 < right - 1 and top < bottom2 - 1 and top2 < bottom - 1
        ]

    def wires_behind_nodes(self, canvas="nodes 2.0"):
        """What wires the frontend has drawn behind which nodes, in words; the whole graph is brought on the screen."""
        self.fit()
        return self.page.evaluate(BEHIND, self.page.evaluate(BOXES, canvas != "classic"))

    def fit(self):
        """Brings the whole graph on the screen."""
        self.page.get_by_label("Fit View").click()
        self.page.wait_for_timeout(700)  # it glides

    def compare_colors(self, view):
        """A graph of one red and one green image in Before and After, in `view`. Returns that node's id."""
        node = self.page.evaluate(COMPARED, view)
        self.page.get_by_label("Fit View").click()
        return node

    def area(self, node):
        """The pixels of the screen that a node covers, as a PIL image."""
        return self.screen(self.page.evaluate(AREA, node))

    def screen(self, clip):
        """The pixels of the screen in `clip` {x, y, width, height}, as a PIL image."""
        with Image.open(io.BytesIO(self.page.screenshot(clip=clip))) as image:
            return image.convert("RGB")

    def complaints(self):
        """The text of every dialog that is open."""
        return self.page.get_by_role("dialog").all_inner_texts()

    def run(self):
        """Presses Run and waits for the end. Returns the nodes that showed a new image before it, in order."""
        self.page.evaluate(WATCH)
        self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function("watched.some(event => event.what.startsWith('execution'))", timeout=120_000)
        events = self.page.evaluate("watched")
        (end,) = (event for event in events if event["what"].startswith("execution"))
        assert end["what"] == "execution_success", end["detail"]
        return [event["node"] for event in events[: events.index(end)]]

    def nodes(self, kind):
        """Ids of the graph's nodes of this class."""
        return self.page.evaluate("kind => app.graph.nodes.filter(n => n.type === kind).map(n => String(n.id))", kind)

    def image(self, node):
        """The image that a node shows, as a PIL image, once it is on the screen."""
        return self._image(self.page.locator(f"[data-node-id='{node}'] img"))

    def thumbnail(self, name):
        """The same of a template's card."""
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()  # it is not loaded before
        return self._image(card.locator("img"))

    def help(self, kind):
        """Opens the help of a node of class `kind`. Returns the part of the page that it is in."""
        self.page.evaluate("kind => app.canvas.selectNode(app.graph.nodes.find(node => node.type === kind))", kind)
        self.page.get_by_test_id("info-button").click()
        shown = self.page.locator(".node-help-content")
        shown.locator("img").first.wait_for()
        return shown

    def help_images(self, kind):
        """Opens the help of a node of class `kind`, closes it again. Returns its images as PIL images."""
        images = [self._image(img) for img in self.help(kind).locator("img").all()]
        self.page.get_by_label("Toggle properties panel").click()
        return images

    def drawn(self, text):
        """What the browser draws for each letter of `text` in the page's own font, as bytes."""
        return [bytes(each) for each in self.page.evaluate(DRAWN, text)]

    def _until(self, act, seen):
        """Repeats `act` until `seen(milliseconds)`, which waits for what it does: a busy page misses a click now and then."""
        from playwright.sync_api import TimeoutError as Missed

        for _ in range(6):
            with suppress(Missed):
                act()
            with suppress(Missed):
                return seen(10_000)
        raise AssertionError("the page does not answer")

    def _image(self, shown):
        shown.wait_for(state="visible")
        self.page.wait_for_function("img => img.complete && img.naturalWidth > 0", arg=shown.element_handle())
        with Image.open(io.BytesIO(base64.b64decode(shown.evaluate(PIXELS)))) as image:
            return image.convert("RGB")

    def on_screen(self, node):
        """The pixels of the screen where that image is, as a PIL image."""
        with Image.open(io.BytesIO(self.page.locator(f"[data-node-id='{node}'] img").screenshot())) as image:
            return image.convert("RGB")

    def surround(self, photo):
        """Puts Load Image with `photo` before the graph's one node and Save Image behind each of its outputs."""
        self.page.evaluate(AROUND, photo)
        self.page.get_by_label("Fit View").click()


def settings(base):
    """Writes SETTINGS for the server whose base folder is `base`, before it is asked for them."""
    path = base / "user" / "default" / "comfy.settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SETTINGS), encoding="utf-8")
