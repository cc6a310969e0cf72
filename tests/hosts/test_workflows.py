"""The shipped workflows, in a real ComfyUI server of the oldest and of the newest supported version."""

import json
import re
import urllib.request

import numpy as np
import pytest
from comfyui_fluxir.demo.comfyui import ComfyUIError
from PIL import Image

from .workflow_host import PACK, PROMPT, node_of, on_miniature_weights, read, stock

WORKFLOWS = sorted(path.name for path in (PACK / "workflows").glob("*.json"))
SIZES = {"fluxgen_miniature.json": (784, 552)}
"""Of what is saved, where it is not the shipped photo: a contact sheet of six pictures."""


@pytest.fixture
def stocked(server, tmp_path):
    """A server that finds the shipped weights, or tiny ones of their names, and a picture of the shipped name."""
    stock(server.base, tmp_path)
    return server


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_and_its_api_twin_are_one_graph(server, name):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    def graph(api):
        return {key: (node["class_type"], node["inputs"]) for key, node in api.items()}

    assert graph(convert_ui_to_api(read(name), server.get("/object_info"))) == graph(read(name, "workflows/api"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_as_shipped(stocked, name):
    graph = on_miniature_weights(read(name, "workflows/api"))
    (saved,) = stocked.run(graph, ui=read(name))[node_of(graph, "SaveImage")]
    with Image.open(saved) as image:
        assert image.size == SIZES.get(name, (104, 72))
        assert ("fluxir_search" in image.text) == any(node["class_type"] == "FluxIRTTSSampler" for node in graph.values())
        pixels = np.asarray(image)
    assert pixels.std() > 0


@pytest.mark.parametrize("name", WORKFLOWS)
def test_before_and_after_stand_in_cores_own_comparison(name):
    graph = read(name, "workflows/api")
    shown = graph[node_of(graph, "ImageCompare")]["inputs"]
    assert shown["image_a"] != shown["image_b"]
    if name not in SIZES:  # those start from a photo, or degrade a good one, and save the restored one
        assert graph[shown["image_a"][0]]["class_type"] in ("LoadImage", "FluxIRDegradeImage")
        assert shown["image_b"] == graph[node_of(graph, "SaveImage")]["inputs"]["images"]


def test_a_search_shows_its_finalists_below_its_chart(stocked):
    graph = read("fluxir_search_miniature.json", "workflows/api")
    (sheet,) = stocked.run(graph)[node_of(graph, "PreviewImage")]
    with Image.open(sheet) as image:
        chart, below = np.asarray(image.convert("RGB"))[:432], np.asarray(image.convert("RGB"))[432:]
    assert (chart.max((0, 1)) == 255).all() and below.shape[0] > 200
    assert (below == (90, 220, 120)).all(-1).any() and not (chart == (90, 220, 120)).all(-1).any()  # the winner's frame


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_a_thumbnail_and_a_note(name):
    with Image.open((PACK / "workflows" / name).with_suffix(".jpg")) as thumbnail:
        assert 256 <= thumbnail.width <= 1024
    assert any(node["type"] == "MarkdownNote" and len(node["widgets_values"][0]) > 100 for node in read(name)["nodes"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_download_link_is_of_a_file_that_its_node_loads_and_states_its_hash(name):
    for node in read(name)["nodes"]:
        for link in node["properties"].get("models", []):
            assert link["name"] in node["widgets_values"] and link["url"].endswith(f"/{link['name']}")
            assert link["url"].startswith("https://huggingface.co/") and "/resolve/" in link["url"] and link["directory"]
            assert link["hash_type"] == "SHA256" and re.fullmatch("[0-9a-f]{64}", link["hash"])


def test_a_file_has_one_hash_wherever_it_is_linked():
    links = [link for name in WORKFLOWS for node in read(name)["nodes"] for link in node["properties"].get("models", [])]
    assert links and len({link["name"] for link in links}) == len({(link["url"], link["hash"]) for link in links})


def texts_of(stocked, graph):
    """{node id: text} of what `graph` shows, sampling and pictures left out."""
    images = ("SaveImage", "PreviewImage", "ImageCompare")
    stocked.run({node: content for node, content in graph.items() if content["class_type"] not in images})
    (entry,) = stocked.get("/history?max_items=1").values()
    return {node: output["text"][0] for node, output in entry["outputs"].items()}


def test_the_caption_of_the_cleaned_image_is_the_prompt(stocked):
    graph = on_miniature_weights(read("ummf_flux_search.json", "workflows/api"))
    texts = texts_of(stocked, graph)
    assert texts[PROMPT] == texts[node_of(graph, "FluxIRCaptionImage")] and texts[PROMPT].strip()


def test_a_cleaned_image_that_shows_something_else_is_not_described(stocked):
    graph = on_miniature_weights(read("ummf_flux_search.json", "workflows/api"))
    scaled = graph[node_of(graph, "ImageScale")]
    scaled |= {"class_type": "ImageInvert", "inputs": {"image": scaled["inputs"]["image"]}}
    texts = texts_of(stocked, graph)
    assert texts[PROMPT] == "" and node_of(graph, "FluxIRCaptionImage") not in texts


def test_a_search_is_in_the_images_metadata_and_replays_to_the_identical_image(stocked):
    graph, ui = (read("fluxir_search_miniature.json", folder) for folder in ("workflows/api", "workflows"))
    saver = node_of(graph, "SaveImage")
    (saved,) = stocked.run(graph, ui=ui)[saver]
    with Image.open(saved) as image:
        report, kept = json.loads(image.text["fluxir_search"]), json.loads(image.text["prompt"])
        first = np.asarray(image)
    assert report["preset"] == "quick" and report["nfe"] == report["nfe_planned"] and len(report["log"]) > 0
    assert json.loads(image.text["workflow"]) == ui
    # It changes nothing in the picture, but makes ComfyUI run it again.
    kept[node_of(kept, "FluxIRTTSSampler")]["inputs"]["keep_best"] = True
    (replayed,) = stocked.run(kept, ui=ui)[saver]
    with Image.open(replayed) as image:
        assert np.array_equal(np.asarray(image), first)
        assert json.loads(image.text["fluxir_search"]) == report


def test_the_muted_verifier_judges_too_once_its_weights_are_there(stocked):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    ui = read("search_your_own_miniature.json")
    (muted,) = (node for node in ui["nodes"] if node["mode"] != 0)
    muted["mode"] = 0
    graph = convert_ui_to_api(ui, stocked.get("/object_info"))
    shown = ("PreviewImage", "ImageCompare", "FluxIRBudgetPlan")  # only what is saved runs: one search
    kept = {node: content for node, content in graph.items() if content["class_type"] not in shown}
    (saved,) = stocked.run(kept, ui=ui)[node_of(graph, "SaveImage")]
    with Image.open(saved) as image:
        scores = json.loads(image.text["fluxir_search"])["finalist_scores"]
    assert {"clip_score", "niqe"} <= scores.keys()


def test_an_evaluation_measures_the_restored_photo_against_the_one_before_it_was_degraded(stocked):
    graph = read("fluxir_evaluate_miniature.json", "workflows/api")
    degraded = node_of(graph, "FluxIRDegradeImage")
    graph[degraded]["inputs"]["strength"] = 0.0  # then the degraded photo is the original
    texts = texts_of(stocked, graph)
    before, after = (
        next(texts[node] for node, content in graph.items() if content["_meta"]["title"] == title) for title in ("Before", "After")
    )
    found = [float(re.search(r"\| ssim ↑ \| ([\d.]+) \|", table)[1]) for table in (before, after)]
    assert found[0] == 1.0 > found[1]


def test_cancelling_a_search_leaves_the_server_as_it_was(stocked):
    graph = read("fluxir_search_miniature.json", "workflows/api")
    sampler = node_of(graph, "FluxIRTTSSampler")
    graph[sampler]["inputs"]["preset"] = "best_of_n"
    asked = []

    def cancel(node, step, total):
        if node == sampler and not asked:
            asked.append(urllib.request.urlopen(urllib.request.Request(f"{stocked.url}/interrupt", method="POST")).status)

    with pytest.raises(ComfyUIError, match="^FluxIRTTSSampler: interrupted"):
        stocked.run(graph, progress=cancel)
    assert asked == [200]
    graph[sampler]["inputs"]["preset"] = "quick"
    assert stocked.run(graph)[node_of(graph, "SaveImage")]


def test_the_budget_plan_is_kept_to(stocked):
    graph = read("fluxir_search_miniature.json", "workflows/api")
    budget = node_of(graph, "FluxIRBudgetPlan")
    # Of no other test: a graph that ran before would come from ComfyUI's cache.
    graph[node_of(graph, "RandomNoise")]["inputs"]["noise_seed"] = 4711
    steps = []
    stocked.run(graph, progress=lambda node, step, total: steps.append((node, step, total)))
    (entry,) = list(stocked.get("/history?max_items=1").values())
    report = json.loads(entry["outputs"][budget]["text"][0])
    calls = report["model_calls"]
    assert report["seconds"] == pytest.approx(report["step_seconds"] * calls, abs=0.02) and report["step_seconds"] > 0
    sampler = node_of(graph, "FluxIRTTSSampler")
    assert [(step, total) for node, step, total in steps if node == sampler][-1] == (calls, calls)


def test_the_image_size_need_not_be_a_multiple_of_the_latents(stocked):
    pixels = np.random.default_rng(1).integers(0, 255, (77, 101, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stocked.base / "input" / "odd.png")
    graph = read("fluxir_restore_miniature.json", "workflows/api")
    graph["1"]["inputs"]["image"] = "odd.png"
    graph["10"]["inputs"]["steps"] = 2
    (saved,) = stocked.run(graph)["12"]
    with Image.open(saved) as image:
        assert image.size == (96, 72)  # core's VAE Encode crops to whole latents


def test_a_wrong_latent_size_reaches_the_artist_as_one_sentence(stocked):
    graph = read("fluxir_restore_miniature.json", "workflows/api")
    graph["7"]["inputs"]["width"] = 64
    with pytest.raises(ComfyUIError, match="^KSampler: Apply FluxIR Adapter: the degraded latent is 13x9 but .* 8x9;"):
        stocked.run(graph)
