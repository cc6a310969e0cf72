"""The shipped workflows, in a real ComfyUI server of the oldest and of the newest supported version."""

import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfyui_fluxir.demo.comfyui import ComfyUIError

from .tiny import write_tiny

PACK = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted(path.name for path in (PACK / "workflows").glob("*.json"))


def read(name, folder="workflows"):
    return json.loads((PACK / folder / name).read_text())


@pytest.fixture
def stocked(server, tmp_path):
    """A server that finds the shipped weights, or tiny ones of their names, and a picture of the shipped name."""
    for key, path in write_tiny(tmp_path).items():
        if not (PACK / "models" / "miniature" / key / path.name).exists():
            target = server.base / "models" / key / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (server.base / "input").mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (72, 104, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(server.base / "input" / "fluxir_demo_degraded.png")
    return server


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_and_its_api_twin_are_one_graph(server, name):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    def graph(api):
        return {key: (node["class_type"], node["inputs"]) for key, node in api.items()}

    assert graph(convert_ui_to_api(read(name), server.get("/object_info"))) == graph(read(name, "workflows/api"))


def on_miniature_weights(graph):
    """`graph` with the miniature's files for FLUX.1-dev's, and its empty prompt for the text encoders, which have no miniature."""
    graph = json.loads(json.dumps(graph))
    names = {"flux1-dev.safetensors": "mini-flux.safetensors", "ae.safetensors": "mini-flux-vae.safetensors"}
    for node in graph.values():
        node["inputs"] = {key: names.get(value, value) if isinstance(value, str) else value for key, value in node["inputs"].items()}
        if node["class_type"] == "DualCLIPLoader":
            node |= {"class_type": "LoadFluxIRAdapter", "inputs": {"adapter_name": "mini-flux-fluxir.safetensors"}}
        elif node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "NullTextConditioning", "inputs": {"adapter": node["inputs"]["clip"]}}
    return graph


def saver_of(graph):
    (saver,) = (node for node, content in graph.items() if content["class_type"] == "SaveImage")
    return saver


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_as_shipped(stocked, name):
    graph = on_miniature_weights(read(name, "workflows/api"))
    (saved,) = stocked.run(graph)[saver_of(graph)]
    with Image.open(saved) as picture:
        assert picture.size == (104, 72)
        pixels = np.asarray(picture)
    assert pixels.std() > 0


def test_a_search_is_in_the_pictures_metadata_and_replays_to_the_identical_picture(stocked):
    graph, ui = (read("fluxir_search_miniature.json", folder) for folder in ("workflows/api", "workflows"))
    saver = saver_of(graph)
    (saved,) = stocked.run(graph, ui=ui)[saver]
    with Image.open(saved) as picture:
        report, kept = json.loads(picture.text["fluxir_search"]), json.loads(picture.text["prompt"])
        first = np.asarray(picture)
    assert report["preset"] == "fast" and report["nfe"] == report["nfe_planned"] and len(report["log"]) > 0
    assert json.loads(picture.text["workflow"]) == ui
    (sampler,) = (node for node in kept.values() if node["class_type"] == "TTSSampler")
    sampler["inputs"]["keep_best"] = True  # changes nothing in the picture, but makes ComfyUI run it again
    (replayed,) = stocked.run(kept, ui=ui)[saver]
    with Image.open(replayed) as picture:
        assert np.array_equal(np.asarray(picture), first)
        assert json.loads(picture.text["fluxir_search"]) == report


def test_cancelling_a_search_leaves_the_server_as_it_was(stocked):
    graph = read("fluxir_search_miniature.json", "workflows/api")
    (sampler,) = (node for node, content in graph.items() if content["class_type"] == "TTSSampler")
    graph[sampler]["inputs"]["preset"] = "best_of_n"
    asked = []

    def cancel(node, step, total):
        if node == sampler and not asked:
            asked.append(urllib.request.urlopen(urllib.request.Request(f"{stocked.url}/interrupt", method="POST")).status)

    with pytest.raises(ComfyUIError, match="^TTSSampler: interrupted"):
        stocked.run(graph, progress=cancel)
    assert asked == [200]
    graph[sampler]["inputs"]["preset"] = "fast"
    assert stocked.run(graph)[saver_of(graph)]


def test_the_budget_plan_is_kept_to(stocked):
    graph = read("fluxir_search_miniature.json", "workflows/api")
    (budget,) = (node for node, content in graph.items() if content["class_type"] == "BudgetPlan")
    (noise,) = (content for content in graph.values() if content["class_type"] == "RandomNoise")
    noise["inputs"]["noise_seed"] = 4711  # of no other test: a graph that ran before would come from ComfyUI's cache
    steps = []
    stocked.run(graph, progress=lambda node, step, total: steps.append((node, step, total)))
    (entry,) = list(stocked.get("/history?max_items=1").values())
    report = json.loads(entry["outputs"][budget]["text"][0])
    assert report["seconds"] == pytest.approx(report["step_seconds"] * report["nfe"], abs=0.02) and report["step_seconds"] > 0
    (sampler,) = (node for node, content in graph.items() if content["class_type"] == "TTSSampler")
    assert [(step, total) for node, step, total in steps if node == sampler][-1] == (report["nfe"], report["nfe"])


def test_the_picture_size_need_not_be_a_multiple_of_the_latents(stocked):
    pixels = np.random.default_rng(1).integers(0, 255, (77, 101, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stocked.base / "input" / "odd.png")
    graph = read("fluxir_restore_miniature.json", "workflows/api")
    graph["1"]["inputs"]["image"] = "odd.png"
    graph["10"]["inputs"]["steps"] = 2
    (saved,) = stocked.run(graph)["12"]
    with Image.open(saved) as picture:
        assert picture.size == (96, 72)  # core's VAE Encode crops to whole latents


def test_a_wrong_latent_size_reaches_the_artist_as_one_sentence(stocked):
    graph = read("fluxir_restore_miniature.json", "workflows/api")
    graph["7"]["inputs"]["width"] = 64
    with pytest.raises(ComfyUIError, match="^KSampler: Apply FluxIR Adapter: the degraded latent is 13x9 but .* 8x9;"):
        stocked.run(graph)
