"""Where the nodes and groups of a graph are put: how large a node may get, and columns of them in groups."""

WIDTH, GAP, BETWEEN, TITLE, EDGE = 320, 60, 140, 34, 24
"""Pixels: a node's width, between nodes of a column, between columns, of a node's title, and between a group and its nodes."""
SIGN, HEADER = 130, 250
"""Pixels: of a group's title, which web/js/groups.js writes large when zoomed out, and of that with the wires that run below it."""
IMAGES = {"LoadImage": 420, "SaveImage": 420, "PreviewImage": 420, "FluxIRBeforeAndAfter": 440, "FluxIRTTSSampler": 600}
"""Pixels of height that a node needs for what it shows beside its slots and widgets."""
TEXTS = {
    "PreviewAny": 200,
    "FluxIREvaluateRestoration": 330,
    "FluxIRBudgetPlan": 170,
    "FluxIRChooseYourself": 130,
    "FluxIRMyTaste": 170,
    "FluxIRLoadNextPhotos": 120,
    "FluxIRSavePhotoByName": 60,
    "FluxIRScoreImages": 90,
    "FluxIRAlignToInput": 90,
    "FluxIRCaptionImage": 120,
    "FluxIRDegradationCheck": 120,
    "CLIPTextEncode": 120,
    "FluxIRCLIPScoreVerifier": 120,
    "FluxIRSaveImagePairs": 120,
}
WIDE = {
    "FluxIRBeforeAndAfter": 560,
    "PreviewImage": 560,
    "SaveImage": 420,
    "FluxIREvaluateRestoration": 420,
    "FluxIRTTSSampler": 420,
}


def height(graph, node):
    """Pixels that a node may take in either canvas, without its title."""
    slots, widgets = graph.slots(node), graph.values(node)
    rows = max(len(slots), len(graph.library.outputs(node.kind)))
    shown = IMAGES.get(node.kind, 0) + TEXTS.get(node.kind, 0)
    return 24 + 24 * rows + 36 * len(widgets) + shown


def layout(graph):
    """({node id: (x, y, width, height)}, [(title, x, y, width, height)]): columns of nodes in groups from left to right.

    A node stands right of those that it is fed by, so that no wire runs back. The models stand below the photo.
    """
    columns, boxes, groups, x, y = columns_of(graph), {}, [], 0, 0
    for index, title in enumerate(graph.groups):
        if index > 0 and graph.groups[index - 1][0] == "1":
            _title, x, top, _width, height = groups[-1]
            y = top + height + GAP
        right, bottom = _lay_out(graph, columns[index], x, y, boxes)
        groups.append((title, x, y, right + EDGE - x, bottom + EDGE - y))
        x, y = max(each[1] + each[3] for each in groups) + BETWEEN - 2 * EDGE, 0
    return boxes, groups


def columns_of(graph):
    """For each group its columns, lists of nodes: every node as near as can be to the first that it feeds."""
    found = []
    for index in range(len(graph.groups)):
        own = [node for node in graph.nodes if node.place == index]
        feeds = [(value[0], node) for node in own for value in node.inputs.values() if isinstance(value, tuple) and value[0] in own]
        level = {node.id: 0 for node in own}
        for node in own:  # described in the order that they run in
            level[node.id] = max((1 + level[before.id] for before, after in feeds if after is node), default=0)
        for node in reversed(own):
            level[node.id] = min((level[after.id] - 1 for before, after in feeds if before is node), default=level[node.id])
        found.append([[node for node in own if level[node.id] == number] for number in range(1 + max(level.values()))])
    return found


def _lay_out(graph, columns, x, y, boxes):
    """Places the nodes of `columns` into `boxes`, their group's corner at (x, y); returns where they end, (right, bottom)."""
    left, bottom = x + EDGE, y
    for own in columns:
        top, width = y + HEADER + TITLE, max(WIDE.get(node.kind, WIDTH) for node in own)
        for node in own:
            boxes[node.id] = (left, top, width, height(graph, node))
            top += height(graph, node) + GAP
        left, bottom = left + width + BETWEEN, max(bottom, top - GAP)
    return left - BETWEEN, bottom
