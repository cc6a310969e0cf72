"""How the wires of a graph run: straight to the next column, and past the columns between in lanes above or below all nodes.

No wire runs behind a node: it turns at reroutes, small dots that the frontend draws, in the gaps between the columns.
"""

from math import hypot

from .graph_layout import BETWEEN, HEADER, SIGN, TITLE

ROWS, FIRST = (20, 28), 14
"""Pixels between two slots of a node, in either canvas, and from its top to the first."""
FAR = 400
"""Pixels up or down from which on a wire turns right beside its output, or its bend would reach the next column."""
LANE, RISER = 15, 12
"""Pixels between two wires side by side: those that run along, and those that go up or down."""
CLEAR = 12
"""Pixels that a wire keeps from a node."""


def wires(graph, boxes, links):
    """(reroutes in the frontend's format, {link id: the reroute before its input}) for `links` [(id, link)] of nodes in `boxes`."""
    lanes = Lanes(boxes)
    reroutes, parents, outputs = [], {}, {}
    for id, link in links:
        ways = [(_output(boxes, link, row), _input(boxes, link, row)) for row in ROWS]
        if any(behind(box, *way) for box in boxes.values() for way in ways):
            outputs.setdefault((link[0].id, link[1]), []).append((id, *ways[0]))
    for ends in outputs.values():
        _route(lanes, ends, reroutes, parents)
    return reroutes, parents


def _output(boxes, link, row):
    x, y, width, _height = boxes[link[0].id]
    return x + width, y + FIRST + row * link[1]


def _input(boxes, link, row):
    x, y, _width, height = boxes[link[2].id]
    return x, y + min(FIRST + row * link[3], height - FIRST)


def _route(lanes, ends, reroutes, parents):
    """One lane for all the wires of one output: `ends` are [(link id, start, end)]."""
    (_id, start, end), gaps = ends[0], {}
    for id, _start, end in ends:
        gaps.setdefault(end[0], []).append((id, end))
    if len(gaps) == 1 and end[0] - start[0] < 2 * BETWEEN:  # to the next column, but far up or down: its bend halved
        points, columns = [((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)], [end[0]]
    else:
        height, leave = lanes.lane(start, [end for _id, _start, end in ends]), lanes.riser(start[0], 1)
        turn = [(leave, start[1])] if abs(height - start[1]) > FAR else []
        points = [*turn, (leave, height), *((lanes.riser(x, -1), height) for x in sorted(gaps))]
        columns = [*(None for _ in turn), None, *sorted(gaps)]
    rest, parent = [id for id, _start, _end in ends], None
    for point, x in zip(points, columns):
        number = len(reroutes) + 1
        reroutes.append(
            {
                "id": number,
                **({"parentId": parent} if parent else {}),
                "pos": [round(each) for each in point],
                "linkIds": list(rest),
            }
        )
        for id, _end in gaps.get(x, []):
            parents[id] = number
            rest.remove(id)
        parent = number


class Lanes:
    """The lanes and risers that are taken."""

    def __init__(self, boxes):
        self.boxes = boxes
        self.top = min(box[1] for box in boxes.values()) - TITLE - 2 * CLEAR
        self.taken, self.above, self.risers = [], 0, {}

    def lane(self, start, ends):
        """The y of a free lane from `start` to `ends`: above all nodes, or below those that it passes, whichever is nearer."""
        right = max(x for x, _y in ends)
        passed = [box for box in self.boxes.values() if box[0] < right and box[0] + box[2] > start[0]]
        above, below = self.top - LANE * self.above, max(box[1] + box[3] for box in passed) + 2 * CLEAR
        while any(abs(below - y) < LANE and start[0] < other[1] and other[0] < right for y, other in self.taken):
            below += LANE
        heights = [start[1], *(y for _x, y in ends)]
        if sum(abs(above - y) for y in heights) < sum(abs(below - y) for y in heights):
            self.above += 1
            if self.above * LANE > HEADER - SIGN:
                raise ValueError("more wires run above the nodes than the groups' titles leave room for; raise HEADER.")
            return above
        self.taken.append((below, (start[0], right)))
        return below

    def riser(self, edge, side):
        """The x of a free riser beside the edge of a column: to its right (`side` 1) or left (-1)."""
        number = self.risers[edge, side] = self.risers.get((edge, side), -1) + 1
        return edge + side * (3 * CLEAR + RISER * (number % ((BETWEEN // 2 - 3 * CLEAR) // RISER + 1)))


def behind(box, start, end, samples=40):
    """Whether the frontend's curve from an output at `start` to an input at `end` runs behind a node in `box`."""
    bend = max(30, hypot(end[0] - start[0], end[1] - start[1]) / 4)
    x, y, width, height = box
    for number in range(1, samples):
        t = number / samples
        weights = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        at = [
            sum(w * p for w, p in zip(weights, ps))
            for ps in ((start[0], start[0] + bend, end[0] - bend, end[0]), (start[1], start[1], end[1], end[1]))
        ]
        inside = x < at[0] < x + width and y - TITLE - CLEAR < at[1] < y + height + CLEAR
        if inside:
            return True
    return False
