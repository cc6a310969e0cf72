"""How the graphs lie on the screen: nothing covers or crosses anything, and what a group is can be read from afar."""

import numpy as np

from ..hosts.workflow_host import PACK, read

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
AROUND_TITLE = """() => {
  const group = app.graph.groups.find(group => group.title === "3 Settings"), { scale, offset } = app.canvas.ds;
  const canvas = app.canvas.canvas.getBoundingClientRect();
  const [x, y] = [0, 1].map(axis => (group.pos[axis] + offset[axis]) * scale);
  return { x: canvas.x + x + 4, y: canvas.y + y + 30 * scale, width: 130, height: 100 * scale };
}"""


def test_no_node_covers_another_and_no_wire_runs_behind_one_in_any_graph(frontend, canvas):
    found = {}
    for name in WORKFLOWS:
        frontend.load(read(f"{name}.json"), name)
        frontend.page.wait_for_timeout(100)
        found[name] = [*frontend.wires_behind_nodes(canvas), *frontend.overlaps(canvas)]
    assert found == {name: [] for name in WORKFLOWS}


def test_a_wire_behind_a_node_is_noticed(frontend, canvas):
    graph = read(f"{WORKFLOWS[0]}.json")
    graph["extra"] = {}
    frontend.load(graph, "no reroutes")
    frontend.page.wait_for_timeout(100)
    assert any(" behind node " in found for found in frontend.wires_behind_nodes(canvas))


def test_the_groups_can_be_read_when_the_whole_graph_is_on_the_screen(frontend, canvas):
    frontend.load(read("04 Search for the best result.json"), "groups")
    frontend.fit()
    written = np.asarray(frontend.screen(frontend.page.evaluate(AROUND_TITLE)), int).min(-1) > 150
    rows = np.flatnonzero(written.any(1))
    assert rows.max() - rows.min() >= 10  # pixels of the screen
