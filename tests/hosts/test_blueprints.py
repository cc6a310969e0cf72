"""The subgraph blueprints, in a real ComfyUI server of the oldest and of the newest supported version."""

import json

import numpy as np
import pytest
from PIL import Image

from .workflow_host import PACK, SIZE, node_of, read, stock

PHOTO = "fluxir_dogs_noisy.jpg"
BLUEPRINTS = sorted(path.stem for path in (PACK / "subgraphs").glob("*.json"))
WORKFLOWS = {
    "Restore Photo": "01 Restore a photo (works now)",
    "Restore Photo (best of search)": "04 Search for the best result",
    "Denoise (few steps)": "03 Restore a photo in four steps",
    "Upscale": "05 Large photo in tiles",
}
SHOWN = {
    "Restore Photo": ["strength", "fidelity", "seed", "detail"],
    "Restore Photo (best of search)": ["strength", "fidelity", "budget", "seed", "detail"],
    "Denoise (few steps)": ["strength", "fidelity", "seed", "detail"],
    "Upscale": ["times_larger", "strength", "fidelity", "seed"],
}
"""Widgets on each blueprint."""


def in_a_graph(blueprint):
    """The UI graph Load Image -> `blueprint` -> Save Image, one for each of its outputs."""
    graph = json.loads(json.dumps(blueprint))
    (restore,) = graph["nodes"]
    load = {
        "id": 100,
        "type": "LoadImage",
        "mode": 0,
        "widgets_values": [PHOTO, "image"],
        "inputs": [],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
    }
    restore["inputs"][0]["link"] = 1
    graph["links"] = [[1, load["id"], 0, restore["id"], 0, "IMAGE"]]
    graph["nodes"].append(load)
    for slot, output in enumerate(restore["outputs"]):
        link = 2 + slot
        output["links"] = [link]
        save = {
            "id": 200 + slot,
            "type": "SaveImage",
            "mode": 0,
            "outputs": [],
            "widgets_values": [output["name"]],
            "inputs": [{"name": "images", "type": "IMAGE", "link": link}],
        }
        graph["nodes"].append(save)
        graph["links"].append([link, restore["id"], slot, save["id"], 0, "IMAGE"])
    return graph


def test_comfyui_offers_every_blueprint(server):
    everything = server.get("/global_subgraphs")
    offered = {key: entry for key, entry in everything.items() if "fluxir" in entry["info"]["node_pack"]}
    assert sorted(entry["name"] for entry in offered.values()) == BLUEPRINTS
    for key, entry in offered.items():
        assert json.loads(server.get(f"/global_subgraphs/{key}")["data"]) == read(f"{entry['name']}.json", "subgraphs")


def run(server, blueprint):
    """The pixels of its first output, by the official converter of UI graphs."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    graph = convert_ui_to_api(in_a_graph(read(f"{blueprint}.json", "subgraphs")), server.get("/object_info"))
    with Image.open(server.run(graph)["200"][0]) as restored:
        return np.asarray(restored.convert("RGB"))


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_restores_as_its_workflow_does(server, tmp_path, name):
    stock(server.base, tmp_path)
    graph = read(f"{WORKFLOWS[name]}.json", "workflows/api")
    graph[node_of(graph, "LoadImage")]["inputs"]["image"] = PHOTO
    saver = node_of(graph, "SaveImage")
    saved = graph[saver]["inputs"]
    if "detail" in SHOWN[name]:
        decoded = graph[saved["images"][0]]["inputs"]
        inputs = {"restored": saved["images"], "degraded": decoded["photo"], "vae": decoded["vae"], "strength": 0.5}
        graph["detail"] = {"class_type": "FluxIRGiveBackDetail", "inputs": inputs}
        saved["images"] = ["detail", 0]
    if name == "Upscale":
        graph[node_of(graph, "KSampler")]["inputs"]["steps"] = 20
    (path,) = server.run(graph)[saver]
    with Image.open(path) as restored:
        larger = 2 if name == "Upscale" else 1
        assert restored.size == tuple(larger * side for side in SIZE) and np.asarray(restored).std() > 0
        assert np.array_equal(run(server, name), np.asarray(restored))


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_shows_its_own_name_and_the_widgets_that_it_promotes(name):
    blueprint = read(f"{name}.json", "subgraphs")
    (shown,), (inside,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert shown["type"] == inside["id"] and shown["title"] == inside["name"] == name
    assert inside["description"] == blueprint["extra"]["BlueprintDescription"]
    assert [part["name"] for part in shown["inputs"]] == [part["name"] for part in inside["inputs"]]
    assert [part["name"] for part in shown["outputs"]] == [part["name"] for part in inside["outputs"]]
    links = {link["id"]: link for link in inside["links"]}
    nodes = {node["id"]: node for node in inside["nodes"]}
    promoted = [
        [str(links[link]["target_id"]), nodes[links[link]["target_id"]]["inputs"][links[link]["target_slot"]]["widget"]["name"]]
        for part, outer in zip(inside["inputs"], shown["inputs"])
        if "widget" in outer
        for link in part["linkIds"]
    ]
    assert promoted == shown["properties"]["proxyWidgets"]
    assert [part["name"] for part in shown["inputs"] if "widget" in part] == SHOWN[name]
