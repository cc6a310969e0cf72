"""Where the nodes and groups of a graph are put: how large a node may get, and columns of them in groups."""

WIDTH, GAP, GROUP_GAP, TITLE, HEADER, EDGE = 340, 60, 80, 34, 50, 24
"""Pixels: a node's width, between nodes, between groups, of a node's title, of a group's title, and between a group and its nodes."""
IMAGES = {"LoadImage": 420, "SaveImage": 420, "PreviewImage": 420, "FluxIRBeforeAndAfter": 440, "FluxIRTTSSampler": 340}
"""Pixels of height that a node needs for what it shows beside its slots and widgets."""
TEXTS = {
    "PreviewAny": 200,
    "FluxIREvaluateRestoration": 330,
    "FluxIRBudgetPlan": 170,
    "FluxIRChooseYourself": 130,
    "FluxIRMyTaste": 170,
    "CLIPTextEncode": 120,
    "FluxIRCLIPScoreVerifier": 120,
    "FluxIRSaveImagePairs": 120,
}
WIDE = {"FluxIRBeforeAndAfter": 560, "PreviewImage": 560, "SaveImage": 420, "FluxIREvaluateRestoration": 420}


def height(graph, node):
    """Pixels that a node may take in either canvas, without its title."""
    slots, widgets = graph.slots(node), graph.values(node)
    rows = max(len(slots), len(graph.library.outputs(node.kind)))
    shown = IMAGES.get(node.kind, 0) + TEXTS.get(node.kind, 0)
    return 24 + 24 * rows + 36 * len(widgets) + shown


def layout(graph):
    """({node id: (x, y, width, height)}, [(title, x, y, width, height)]): columns of nodes in groups from left to right.

    The models stand below the photo, so that a graph is not much wider than a screen.
    """
    boxes, groups, x, y = {}, [], 0, 0
    for index, title in enumerate(graph.groups):
        below = index > 0 and graph.groups[index - 1][0] == "1"
        if below:
            _title, x, top, _width, height = groups[-1]
            y = top + height + GAP
        right, bottom = _lay_out(graph, index, x, y, boxes)
        groups.append((title, x, y, right + EDGE - x, bottom + EDGE - y))
        x, y = max(each[1] + each[3] for each in groups) + GROUP_GAP, 0
    return boxes, groups


def _lay_out(graph, group, x, y, boxes):
    """Places the nodes of `group`, whose corner is at (x, y), into `boxes`; returns where they end, (right, bottom)."""
    left, bottom = x + EDGE, y
    for column in range(1 + max(node.place[1] for node in graph.nodes if node.place[0] == group)):
        own, top = [node for node in graph.nodes if node.place == (group, column)], y + HEADER + TITLE
        width = max(WIDE.get(node.kind, WIDTH) for node in own)
        for node in own:
            boxes[node.id] = (left, top, width, height(graph, node))
            top += height(graph, node) + GAP
        left, bottom = left + width + GAP, max(bottom, top - GAP)
    return left - GAP, bottom
