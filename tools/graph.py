"""A graph described in Python: the frontend's JSON, laid out in titled groups, and the API's."""

from dataclasses import dataclass, field
from typing import Any

from .graph_layout import TITLE, layout
from .graph_wires import wires

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
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
    """One node: `inputs` {name: value, or (node, slot)}; `place` the number of its group."""

    id: int
    kind: str
    title: str | None
    inputs: dict
    place: int
    mode: int = 0
    models: list = field(default_factory=list)

    def __getitem__(self, slot):
        return self, slot


class Graph:
    """A graph in the making: `group` says where the nodes that follow go."""

    def __init__(self, library, note="", aliases=()):
        self.library, self.note, self.aliases = library, note, list(aliases)
        self.nodes, self.groups = [], []
        self.ends, self.results, self.promoted = [], [], []

    def group(self, title):
        self.groups.append(title)

    def add(self, kind, title=None, mode: Any = 0, models: Any = (), **inputs):
        """A node of class `kind`; an input that is a node means its first output. Returns the Node."""
        inputs = {name: value[0] if isinstance(value, Node) else value for name, value in inputs.items()}
        node = Node(len(self.nodes) + 1, kind, title, inputs, len(self.groups) - 1, mode, list(models))
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

    def links(self):
        """[(origin, slot, target, slot, type)] of all links between nodes, in order."""
        links = []
        for node in self.nodes:
            for place, (_name, kind, _widget, _optional, linked) in enumerate(self.slots(node)):
                if linked:
                    if "," in kind:  # one of several
                        kind = self.library.outputs(linked[0].kind)[linked[1]][1]
                    links.append((*linked, node, place, kind))
        return links

    def ui_node(self, node, order, box, links):
        """A node in the frontend's format, `order`-th of all, at `box` (x, y, width, height); `links` [(id, link)] of all."""
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
        links, (boxes, groups) = list(enumerate(self.links(), 1)), layout(self)
        reroutes, parents = wires(self, boxes, links)
        nodes = [self.ui_node(node, order, boxes[node.id], links) for order, node in enumerate(self.nodes)]
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
                    "flags": {"fluxir": True},
                }
                for number, (title, x, y, width, height) in enumerate(groups, 1)
            ],
            "config": {},
            "extra": {
                "reroutes": reroutes,
                "linkExtensions": [{"id": link, "parentId": reroute} for link, reroute in sorted(parents.items())],
            },
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
        return Node(INPUT, "", None, {}, -1), len(self.ends) - 1

    def promote(self, node, widget, name=None):
        """Shows the `widget` of `node` on the blueprint, as `name` or under its own."""
        self.promoted.append((node, widget, name or widget))

    def result(self, name, node, slot=0):
        """An output of the blueprint."""
        self.results.append((name, node, slot))
