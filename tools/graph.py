"""A graph described in Python: the frontend's JSON, laid out in titled groups, the API's, and a blueprint of it."""

from dataclasses import dataclass, field
from typing import Any

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
WIDTH, GAP, GROUP_GAP, TITLE, HEADER, EDGE = 340, 60, 80, 34, 50, 24
"""Pixels: a node's width, between nodes, between groups, of a node's title, of a group's title, and between a group and its nodes."""
IMAGES = {"LoadImage": 420, "SaveImage": 420, "PreviewImage": 420, "FluxIRBeforeAndAfter": 440, "FluxIRTTSSampler": 340}
"""Pixels of height that a node needs for what it shows beside its slots and widgets."""
TEXTS = {
    "PreviewAny": 200,
    "FluxIREvaluateRestoration": 330,
    "FluxIRBudgetPlan": 170,
    "CLIPTextEncode": 120,
    "FluxIRCLIPScoreVerifier": 120,
    "FluxIRSaveImagePairs": 120,
}
WIDE = {"FluxIRBeforeAndAfter": 560, "PreviewImage": 560, "SaveImage": 420, "FluxIREvaluateRestoration": 420}
GROUP_COLORS = {"1": "#3f789e", "2": "#8a5a9e", "3": "#8a8a3f", "4": "#3f8a5a"}
"""By the number that a group's title begins with."""
NODE_COLOR = {"color": "#1f3b47", "bgcolor": "#2b4f5e"}
"""Of the pack's own nodes."""
INPUT, OUTPUT = -10, -20
"""Ids of a subgraph's ends, as the frontend has them."""


class Library:
    """What ComfyUI's /object_info says of its nodes."""

    def __init__(self, object_info):
        self.nodes = object_info

    def inputs(self, kind):
        """[(name, type, options)] of a node's inputs in the order they are shown."""
        info = self.nodes[kind]
        sections = [info["input"].get(section, {}) for section in ("required", "optional")]
        return [
            (
                name,
                "COMBO" if isinstance(spec[0], list) else spec[0],
                (spec[1] if len(spec) > 1 else {}) | {"optional": number == 1},
            )
            for number, section in enumerate(sections)
            for name, spec in section.items()
        ]

    def outputs(self, kind):
        """[(name, type)] of a node's outputs."""
        info = self.nodes[kind]
        return list(zip(info["output_name"], info["output"]))


@dataclass
class Node:
    """One node: `inputs` {name: value, or (node, slot)}; `place` (group, column)."""

    id: int
    kind: str
    title: str | None
    inputs: dict
    place: tuple
    mode: int = 0
    models: list = field(default_factory=list)

    def __getitem__(self, slot):
        return self, slot


class Graph:
    """A graph in the making: `group` and `column` say where the nodes that follow go."""

    def __init__(self, library, note="", aliases=()):
        self.library, self.note, self.aliases = library, note, list(aliases)
        self.nodes, self.groups = [], []
        self.ends, self.results, self.promoted = [], [], []

    def group(self, title):
        self.groups.append(title)
        self.at = 0

    def column(self):
        self.at += 1

    def add(self, kind, title=None, mode: Any = 0, models: Any = (), **inputs):
        """A node of class `kind`; an input that is a node means its first output. Returns the Node."""
        inputs = {name: value[0] if isinstance(value, Node) else value for name, value in inputs.items()}
        node = Node(len(self.nodes) + 1, kind, title, inputs, (len(self.groups) - 1, self.at), mode, list(models))
        self.nodes.append(node)
        return node

    def slots(self, node):
        """[(name, type, whether a widget, whether optional, linked output or None)] of the slots that the frontend shows."""
        shown = []
        for name, kind, options in self.library.inputs(node.kind):
            if kind == "COMFY_AUTOGROW_V3":
                given = [key for key in node.inputs if key.startswith(f"{name}.")]
                ((_, (inner, _options)),) = options["template"]["input"]["required"].items()
                for number in range(len(given) + 1):
                    slot = f"{name}.{options['template']['prefix']}{number}"
                    shown.append((slot, inner, False, number > 0, node.inputs.get(slot)))
                continue
            value = node.inputs.get(name)
            linked = value if isinstance(value, tuple) else None
            widget = kind in WIDGETS and not options.get("forceInput")
            if not widget or linked or (node, name) in [(own, each) for own, each, _ in self.promoted]:
                shown.append((name, kind, widget, options["optional"], linked))
        return shown

    def values(self, node):
        """{name: value} of a node's widgets, as given or by default."""
        found = {}
        for name, kind, options in self.library.inputs(node.kind):
            if kind in WIDGETS and not options.get("forceInput"):
                given = node.inputs.get(name)
                if given is None or isinstance(given, tuple):
                    given = options.get("default", self._first(node.kind, name, kind))
                found[name] = given
        return found

    def _first(self, node, name, kind):
        if kind != "COMBO":
            return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}[kind]
        (spec,) = (section[name] for section in self.library.nodes[node]["input"].values() if name in section)
        return (spec[0] if isinstance(spec[0], list) else spec[1]["options"])[0]

    def _widget_values(self, node):
        values = []
        for name, value in self.values(node).items():
            values.append(value)
            ((_, kind, options),) = (each for each in self.library.inputs(node.kind) if each[0] == name)
            if options.get("control_after_generate") or (kind == "INT" and name in ("seed", "noise_seed")):
                values.append("fixed")
            if options.get("image_upload"):
                values.append("image")
        return values

    def _links(self):
        """[(origin, slot, target, slot, type)] of all links between nodes, in order."""
        links = []
        for node in self.nodes:
            for place, (_name, kind, _widget, _optional, linked) in enumerate(self.slots(node)):
                if linked:
                    if "," in kind:  # one of several
                        kind = self.library.outputs(linked[0].kind)[linked[1]][1]
                    links.append((*linked, node, place, kind))
        return links

    def height(self, node):
        """Pixels that a node may take in either canvas, without its title."""
        slots, widgets = self.slots(node), self.values(node)
        rows = max(len(slots), len(self.library.outputs(node.kind)))
        shown = IMAGES.get(node.kind, 0) + TEXTS.get(node.kind, 0)
        return 24 + 24 * rows + 36 * len(widgets) + shown

    def layout(self):
        """({node id: (x, y, width, height)}, [(title, x, y, width, height)]): columns of nodes in groups from left to right.

        The models stand below the photo, so that a graph is not much wider than a screen.
        """
        boxes, groups, x, y = {}, [], 0, 0
        for index, title in enumerate(self.groups):
            below = index > 0 and self.groups[index - 1][0] == "1"
            if below:
                _title, x, top, _width, height = groups[-1]
                y = top + height + GAP
            right, bottom = self._lay_out(index, x, y, boxes)
            groups.append((title, x, y, right + EDGE - x, bottom + EDGE - y))
            x, y = max(each[1] + each[3] for each in groups) + GROUP_GAP, 0
        return boxes, groups

    def _lay_out(self, group, x, y, boxes):
        """Places the nodes of `group`, whose corner is at (x, y), into `boxes`; returns where they end, (right, bottom)."""
        left, bottom = x + EDGE, y
        for column in range(1 + max(node.place[1] for node in self.nodes if node.place[0] == group)):
            own, top = [node for node in self.nodes if node.place == (group, column)], y + HEADER + TITLE
            width = max(WIDE.get(node.kind, WIDTH) for node in own)
            for node in own:
                boxes[node.id] = (left, top, width, self.height(node))
                top += self.height(node) + GAP
            left, bottom = left + width + GAP, max(bottom, top - GAP)
        return left - GAP, bottom

    def _ui_node(self, node, order, box, links):
        slots = []
        for place, (name, kind, widget, optional, _linked) in enumerate(self.slots(node)):
            link = next((id for id, each in links if (each[2], each[3]) == (node, place)), None)
            slot = {"name": name, "type": kind}
            if "." in name:
                slot = {"label": name.split(".")[1], **slot}
            if widget:
                slot["widget"] = {"name": name}
            elif optional:
                slot["shape"] = 7
            slots.append({**slot, "link": link})
        outputs = [
            {"name": name, "type": kind, "links": [id for id, each in links if each[0] is node and each[1] == slot]}
            for slot, (name, kind) in enumerate(self.library.outputs(node.kind))
        ]
        x, y, width, height = box
        properties = {"Node name for S&R": node.kind} | ({"models": node.models} if node.models else {})
        return {
            "id": node.id,
            "type": node.kind,
            "pos": [x, y],
            "size": [width, height],
            "flags": {},
            "order": order,
            "mode": node.mode,
            "inputs": slots,
            "outputs": outputs,
            **({"title": node.title} if node.title else {}),
            "properties": properties,
            "widgets_values": self._widget_values(node),
            **(NODE_COLOR if node.kind.startswith("FluxIR") else {}),
        }

    def ui(self, id):
        """The graph in the frontend's format, its note at the left."""
        links, (boxes, groups) = list(enumerate(self._links(), 1)), self.layout()
        nodes = [self._ui_node(node, order, boxes[node.id], links) for order, node in enumerate(self.nodes)]
        note = {
            "id": len(nodes) + 1,
            "type": "MarkdownNote",
            "pos": [-460, TITLE],
            "size": [400, max(560, 17 * sum(1 + len(line) // 48 for line in self.note.split("\n")))],
            "flags": {},
            "order": len(nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "Read me",
            "properties": {},
            "widgets_values": [self.note],
        }
        return {
            "id": id,
            "revision": 0,
            "last_node_id": len(nodes) + 1,
            "last_link_id": len(links),
            "nodes": [*nodes, note],
            "links": [[number, origin.id, slot, target.id, place, kind] for number, (origin, slot, target, place, kind) in links],
            "groups": [
                {
                    "id": number,
                    "title": title,
                    "bounding": [x, y, width, height],
                    "color": GROUP_COLORS[title[0]],
                    "font_size": 40,
                    "flags": {},
                }
                for number, (title, x, y, width, height) in enumerate(groups, 1)
            ],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def api(self):
        """The graph in the API's format."""
        return {
            str(node.id): {
                "inputs": self.values(node)
                | {
                    name: [str(value[0].id), value[1]]
                    for name, value in node.inputs.items()
                    if isinstance(value, tuple) and value[0].mode == 0
                },
                "class_type": node.kind,
                "_meta": {"title": node.title or self.library.nodes[node.kind]["display_name"]},
            }
            for node in self.nodes
            if node.mode == 0
        }

    def end(self, name, kind, label=None):
        """An input of the blueprint, as an output that nodes can be linked to."""
        self.ends.append((name, kind, label))
        return Node(INPUT, "", None, {}, ()), len(self.ends) - 1

    def promote(self, node, name, label=None):
        """Shows the widget `name` of `node` on the blueprint."""
        self.promoted.append((node, name, label))

    def result(self, name, node, slot=0):
        """An output of the blueprint."""
        self.results.append((name, node, slot))

    def blueprint(self, name, make_id):
        """The graph as a blueprint `name`: one node, with `ends` and promoted widgets as its inputs. Its note is its description."""
        links, (boxes, groups) = list(enumerate(self._links(), 1)), self.layout()
        for number, (node, widget, _label) in enumerate(self.promoted):
            place = [each[0] for each in self.slots(node)].index(widget)
            kind = self.slots(node)[place][1]
            links.append((len(links) + 1, (Node(INPUT, "", None, {}, ()), len(self.ends) + number, node, place, kind)))
        for number, (_name, node, slot) in enumerate(self.results):
            kind = self.library.outputs(node.kind)[slot][1]
            links.append((len(links) + 1, (node, slot, Node(OUTPUT, "", None, {}, ()), number, kind)))
        own = [(each, kind, label, False) for each, kind, label in self.ends]
        own += [
            (widget, {each[0]: each[1] for each in self.slots(node)}[widget], label, True) for node, widget, label in self.promoted
        ]
        inputs, shown = [], []
        for number, (each, kind, label, widget) in enumerate(own):
            ids = [id for id, link in links if (link[0].id, link[1]) == (INPUT, number)]
            named = {"label": label} if label else {}
            inputs.append(
                {
                    "id": make_id(f"input {each}"),
                    "name": each,
                    "type": kind,
                    "linkIds": ids,
                    **named,
                    "pos": [-140, 20 + 20 * number],
                }
            )
            shown.append({"name": each, "type": kind, **named, **({"widget": {"name": each}} if widget else {}), "link": None})
        right = max(x + width for _title, x, _y, width, _height in groups) + GAP
        outputs = []
        for number, (each, node, slot) in enumerate(self.results):
            ids = [id for id, link in links if (link[2].id, link[3]) == (OUTPUT, number)]
            kind = self.library.outputs(node.kind)[slot][1]
            outputs.append(
                {"id": make_id(f"output {each}"), "name": each, "type": kind, "linkIds": ids, "pos": [right + 20, 20 + 20 * number]}
            )
        inside = {
            "id": make_id("graph"),
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": len(self.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": name,
            "inputNode": {"id": INPUT, "bounding": [-260, 0, 120, 40 + 20 * len(inputs)]},
            "outputNode": {"id": OUTPUT, "bounding": [right, 0, 120, 40 + 20 * len(outputs)]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": [self._ui_node(node, order, boxes[node.id], links) for order, node in enumerate(self.nodes)],
            "groups": [],
            "links": [
                {
                    "id": id,
                    "origin_id": link[0].id,
                    "origin_slot": link[1],
                    "target_id": link[2].id,
                    "target_slot": link[3],
                    "type": link[4],
                }
                for id, link in links
            ],
            "extra": {},
            "category": "FluxIR",
            "description": self.note,
        }
        node = {
            "id": 1,
            "type": inside["id"],
            "pos": [0, 0],
            "size": [WIDTH, 40 + 30 * len(own)],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": shown,
            "outputs": [{"name": each["name"], "type": each["type"], "links": []} for each in outputs],
            "properties": {"proxyWidgets": [[str(node.id), widget] for node, widget, _label in self.promoted]},
            "widgets_values": [],
            "title": name,
        }
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [node],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [inside]},
            "extra": {"BlueprintDescription": self.note, "BlueprintSearchAliases": self.aliases},
        }
