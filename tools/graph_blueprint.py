"""A graph as a blueprint: one node, with the graph inside."""

from .graph import INPUT, OUTPUT, Node
from .graph_layout import GAP, WIDTH, layout


def blueprint(graph, name, make_id):
    """The graph as a blueprint `name`: one node, with `ends` and promoted widgets as its inputs. Its note is its description."""
    links, (boxes, groups) = list(enumerate(graph.links(), 1)), layout(graph)
    for number, (node, widget, _name) in enumerate(graph.promoted):
        place = [each[0] for each in graph.slots(node)].index(widget)
        kind = graph.slots(node)[place][1]
        links.append((len(links) + 1, (Node(INPUT, "", None, {}, -1), len(graph.ends) + number, node, place, kind)))
    for number, (_name, node, slot) in enumerate(graph.results):
        kind = graph.library.outputs(node.kind)[slot][1]
        links.append((len(links) + 1, (node, slot, Node(OUTPUT, "", None, {}, -1), number, kind)))
    own = [(each, kind, label, False) for each, kind, label in graph.ends]
    for node, widget, each in graph.promoted:
        own.append((each, {slot[0]: slot[1] for slot in graph.slots(node)}[widget], None, True))
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
    for number, (each, node, slot) in enumerate(graph.results):
        ids = [id for id, link in links if (link[2].id, link[3]) == (OUTPUT, number)]
        kind = graph.library.outputs(node.kind)[slot][1]
        outputs.append(
            {"id": make_id(f"output {each}"), "name": each, "type": kind, "linkIds": ids, "pos": [right + 20, 20 + 20 * number]}
        )
    inside = {
        "id": make_id("graph"),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(graph.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INPUT, "bounding": [-260, 0, 120, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT, "bounding": [right, 0, 120, 40 + 20 * len(outputs)]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": [graph.ui_node(node, order, boxes[node.id], links) for order, node in enumerate(graph.nodes)],
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
        "description": graph.note,
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
        "properties": {"proxyWidgets": [[str(node.id), widget] for node, widget, _name in graph.promoted]},
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
        "extra": {"BlueprintDescription": graph.note, "BlueprintSearchAliases": graph.aliases},
    }
