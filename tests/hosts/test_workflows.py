"""The shipped workflows, in a real ComfyUI server of the oldest and of the newest supported version."""

import json
import re
import shutil
import urllib.request

import numpy as np
import pytest
from comfyui_fluxir.demo.comfyui import ComfyUIError
from comfyui_fluxir.tools.samples import SAMPLES
from PIL import Image

from .workflow_host import PACK, PROMPT, SIZE, node_of, on_miniature_weights, read, stock

WORKFLOWS = sorted(path.name for path in (PACK / "workflows").glob("*.json"))
LARGE = "05 Large photo in tiles.json"
FOLDER = "24 Restore a folder of photos.json"
ONE = [name for name in WORKFLOWS if name != FOLDER]
"""Those that restore one photo, and save it as ComfyUI does."""
SHEETS = {"11 Make pairs to train on.json": (784, 552)}
"""Of what is saved, where it is no photo: a contact sheet of six images."""
SCALED = {
    "15 FLUX dev - LucidFlux restores a photo.json": (128, 80),
    "16 FLUX dev - LucidFlux, large photo and search.json": (202, 140),
    "18 FLUX dev - enlarge with a ControlNet.json": (202, 140),
    "19 FLUX dev - enlarge with a ControlNet and search.json": (202, 140),
    "20 FLUX dev - deblur and search.json": (128, 80),
    "21 FLUX dev - enlarge in one step.json": (404, 280),
    "22 FLUX Kontext - restore an old photo.json": (96, 64),
    "23 FLUX klein - edit a large photo.json": (202, 140),
}
"""Of what is saved, where the graph scales the photo."""
SIZES = SHEETS | SCALED | {LARGE: (202, 140)}


SCALERS = ("ImageScaleBy", "ImageScaleToTotalPixels", "FluxKontextImageScale")


@pytest.fixture
def stocked(server, tmp_path):
    """A server that finds the shipped weights, or tiny ones of their names, and an image of the shipped name."""
    stock(server.base, tmp_path)
    return server


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_and_its_api_twin_are_one_graph(server, name):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    def graph(api):
        return {key: (node["class_type"], node["inputs"]) for key, node in api.items()}

    assert graph(convert_ui_to_api(read(name), server.get("/object_info"))) == graph(read(name, "workflows/api"))


@pytest.mark.parametrize("name", ONE)
def test_a_workflow_runs_as_shipped(stocked, name):
    graph = on_miniature_weights(read(name, "workflows/api"))
    (saved,) = stocked.run(graph, ui=read(name))[node_of(graph, "SaveImage")]
    with Image.open(saved) as image:
        assert image.size == SIZES.get(name, SIZE)
        assert ("fluxir_search" in image.text) == any(node["class_type"] == "FluxIRTTSSampler" for node in graph.values())
        pixels = np.asarray(image)
    assert pixels.std() > 0


@pytest.mark.parametrize("name", ONE)
def test_before_and_after_are_compared(name):
    graph = read(name, "workflows/api")
    shown = graph[node_of(graph, "FluxIRBeforeAndAfter")]["inputs"]
    if name not in SHEETS:  # those start from a photo, scaled or not, or degrade a good one, and save the restored one
        assert graph[shown["before"][0]]["class_type"] in ("LoadImage", "FluxIRDegradeImage", *SCALERS)
        assert shown["after"] == graph[node_of(graph, "SaveImage")]["inputs"]["images"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_photo_of_a_graph_comes_with_the_pack(server, name):
    for node in read(name, "workflows/api").values():
        if node["class_type"] == "LoadImage":
            assert (SAMPLES / node["inputs"]["image"]).exists() and (server.base / "input" / node["inputs"]["image"]).exists()


def test_neighboring_graphs_show_different_photos():
    photos = [
        {node["inputs"]["image"] for node in read(name, "workflows/api").values() if node["class_type"] == "LoadImage"}
        for name in ONE
    ]
    assert all(a != b for a, b in zip(photos, photos[1:]))


def test_a_search_shows_its_finalists_below_its_chart(stocked):
    graph = read("04 Search for the best result.json", "workflows/api")
    (sheet,) = stocked.run(graph)[node_of(graph, "PreviewImage")]
    with Image.open(sheet) as image:
        chart, below = np.asarray(image.convert("RGB"))[:432], np.asarray(image.convert("RGB"))[432:]
    assert (chart.max((0, 1)) == 255).all() and below.shape[0] > 200
    assert (below == (90, 220, 120)).all(-1).any() and not (chart == (90, 220, 120)).all(-1).any()  # the winner's frame


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_a_thumbnail_and_a_note(name):
    with Image.open((PACK / "workflows" / name).with_suffix(".jpg")) as thumbnail:
        assert 256 <= thumbnail.width <= 1024
    (note,) = (node["widgets_values"][0] for node in read(name)["nodes"] if node["type"] == "MarkdownNote")
    assert len(note) > 100 and "`" not in note  # Nodes 2.0 draws inline code unreadably


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_download_link_is_of_a_file_that_its_node_loads(name):
    for node in read(name)["nodes"]:
        for link in node["properties"].get("models", []):
            assert link["name"] in node["widgets_values"] and link["url"].endswith(f"/{link['name']}")
            assert link["url"].startswith("https://huggingface.co/") and "/resolve/" in link["url"] and link["directory"]
            if "hash" in link:  # no public page states those of some files
                assert link["hash_type"] == "SHA256" and re.fullmatch("[0-9a-f]{64}", link["hash"])


def test_a_file_has_one_hash_wherever_it_is_linked():
    links = [link for name in WORKFLOWS for node in read(name)["nodes"] for link in node["properties"].get("models", [])]
    assert links and len({link["name"] for link in links}) == len({(link["url"], link.get("hash")) for link in links})


def texts_of(stocked, graph):
    """{node id: text} of what `graph` shows, sampling and images left out."""
    images = ("SaveImage", "PreviewImage", "FluxIRBeforeAndAfter")
    stocked.run({node: content for node, content in graph.items() if content["class_type"] not in images})
    (entry,) = stocked.get("/history?max_items=1").values()
    return {node: output["text"][0] for node, output in entry["outputs"].items()}


def test_the_caption_of_the_cleaned_image_is_the_prompt(stocked):
    graph = on_miniature_weights(read("13 FLUX dev - photo, caption and search.json", "workflows/api"))
    # Of no other test: what comes from ComfyUI's cache shows nothing.
    graph[node_of(graph, "LoadImage")]["inputs"]["image"] = "fluxir_dogs_original.jpg"
    texts = texts_of(stocked, graph)
    assert texts[PROMPT] == texts[node_of(graph, "FluxIRCaptionImage")] and texts[PROMPT].strip()


def test_a_cleaned_image_that_shows_something_else_is_not_described(stocked):
    graph = on_miniature_weights(read("13 FLUX dev - photo, caption and search.json", "workflows/api"))
    scaled = graph[node_of(graph, "ImageScale")]
    scaled |= {"class_type": "ImageInvert", "inputs": {"image": scaled["inputs"]["image"]}}
    texts = texts_of(stocked, graph)
    assert texts[PROMPT] == "" and node_of(graph, "FluxIRCaptionImage") not in texts


def test_a_search_is_in_the_images_metadata_and_replays_to_the_identical_image(stocked):
    graph, ui = (read("04 Search for the best result.json", folder) for folder in ("workflows/api", "workflows"))
    saver = node_of(graph, "SaveImage")
    (saved,) = stocked.run(graph, ui=ui)[saver]
    with Image.open(saved) as image:
        [report], kept = json.loads(image.text["fluxir_search"]).values(), json.loads(image.text["prompt"])
        first = np.asarray(image)
    assert report["preset"] == "quick" and report["nfe"] == report["nfe_planned"] and len(report["log"]) > 0
    assert json.loads(image.text["workflow"]) == ui
    # It changes nothing in the image, but makes ComfyUI run it again.
    kept[node_of(kept, "FluxIRTTSSampler")]["inputs"]["keep_best"] = True
    (replayed,) = stocked.run(kept, ui=ui)[saver]
    with Image.open(replayed) as image:
        assert np.array_equal(np.asarray(image), first)
        assert json.loads(image.text["fluxir_search"]) == {node_of(graph, "FluxIRTTSSampler"): report}


def test_a_search_that_comes_from_the_cache_is_in_the_images_metadata_too(stocked):
    """Each of two searches in one graph has a report of its own, also when only what is behind them changed."""
    graph, ui = (read("04 Search for the best result.json", folder) for folder in ("workflows/api", "workflows"))
    sampler, saver = node_of(graph, "FluxIRTTSSampler"), node_of(graph, "SaveImage")
    kept = {key: node for key, node in graph.items() if node["class_type"] not in ("PreviewImage", "FluxIRBeforeAndAfter")}
    decoder, steps = kept[saver]["inputs"]["images"][0], node_of(graph, "BasicScheduler")
    kept[steps]["inputs"]["steps"] = 6
    kept["second"] = {**kept[sampler], "inputs": {**kept[sampler]["inputs"], "preset": "balanced"}}
    kept["decoded"] = {**kept[decoder], "inputs": {**kept[decoder]["inputs"], "samples": ["second", 0]}}
    kept["both"] = {"class_type": "ImageBatch", "inputs": {"image1": [decoder, 0], "image2": ["decoded", 0]}}
    kept[saver] = {**kept[saver], "inputs": {**kept[saver]["inputs"], "images": ["both", 0]}}
    reports, ran = [], []
    for prefix in ("first", "second"):
        kept[saver]["inputs"]["filename_prefix"] = prefix
        (saved, _) = stocked.run(kept, ui=ui, progress=lambda node, *_: ran.append((prefix, node)))[saver]
        with Image.open(saved) as image:
            reports.append(json.loads(image.text["fluxir_search"]))
    assert ("first", sampler) in ran and ("second", sampler) not in ran  # it came from the cache
    assert reports[0].keys() == {sampler, "second"} and reports[1] == reports[0]
    assert reports[0][sampler]["preset"] != reports[0]["second"]["preset"]
    kept[sampler]["inputs"]["preset"] = kept["second"]["inputs"]["preset"]  # now it runs again
    (saved, _) = stocked.run(kept, ui=ui)[saver]
    with Image.open(saved) as image:
        again = json.loads(image.text["fluxir_search"])
    assert again[sampler]["preset"] == again["second"]["preset"] == reports[0]["second"]["preset"]


def test_the_muted_verifier_judges_too_once_its_weights_are_there(stocked):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    ui = read("08 Search of your own - step by step.json")
    (muted,) = (node for node in ui["nodes"] if node["mode"] != 0)
    muted["mode"] = 0
    graph = convert_ui_to_api(ui, stocked.get("/object_info"))
    shown = ("PreviewImage", "FluxIRBeforeAndAfter", "FluxIRBudgetPlan")  # only what is saved runs: one search
    kept = {node: content for node, content in graph.items() if content["class_type"] not in shown}
    (saved,) = stocked.run(kept, ui=ui)[node_of(graph, "SaveImage")]
    with Image.open(saved) as image:
        [report] = json.loads(image.text["fluxir_search"]).values()
    scores = report["finalist_scores"]
    assert {"clip_score", "niqe"} <= scores.keys()


def test_an_evaluation_measures_the_restored_photo_against_the_one_before_it_was_degraded(stocked):
    graph = read("06 Measure a restoration.json", "workflows/api")
    degraded = node_of(graph, "FluxIRDegradeImage")
    graph[degraded]["inputs"]["strength"] = 0.0  # then the degraded photo is the original
    texts = texts_of(stocked, graph)
    before, after = (
        next(texts[node] for node, content in graph.items() if content["_meta"]["title"] == title)
        for title in ("The damaged photo", "The restored photo")
    )
    found = [float(re.search(r"ssim ↑ +([\d.]+)", table)[1]) for table in (before, after)]
    assert found[0] == 1.0 > found[1]


def test_canceling_a_search_leaves_the_server_as_it_was(stocked):
    graph = read("04 Search for the best result.json", "workflows/api")
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
    graph = read("04 Search for the best result.json", "workflows/api")
    budget = node_of(graph, "FluxIRBudgetPlan")
    # Of no other test: a graph that ran before would come from ComfyUI's cache.
    graph[node_of(graph, "RandomNoise")]["inputs"]["noise_seed"] = 4711
    steps = []
    stocked.run(graph, progress=lambda node, step, total: steps.append((node, step, total)))
    (entry,) = list(stocked.get("/history?max_items=1").values())
    report = json.loads(entry["outputs"][budget]["report"][0])
    calls = report["model_calls"]
    each = report["decode_seconds"] + report["judge_seconds"]
    assert min(report["step_seconds"], report["decode_seconds"], report["judge_seconds"]) > 0
    assert report["seconds"] == pytest.approx(report["step_seconds"] * calls + each * report["judged_images"], abs=0.02)
    sampler = node_of(graph, "FluxIRTTSSampler")
    assert [(step, total) for node, step, total in steps if node == sampler][-1] == (calls, calls)


def test_transparency_comes_through(stocked):
    pixels = np.random.default_rng(1).integers(0, 255, (77, 101, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:30, :40, 3] = 0
    Image.fromarray(pixels).save(stocked.base / "input" / "transparent.png")
    graph = read("01 Restore a photo (works now).json", "workflows/api")
    graph[node_of(graph, "LoadImage")]["inputs"]["image"] = "transparent.png"
    graph[node_of(graph, "KSampler")]["inputs"]["steps"] = 2
    (saved,) = stocked.run(graph)[node_of(graph, "SaveImage")]
    with Image.open(saved) as image:
        assert image.mode == "RGBA" and np.array_equal(np.asarray(image)[..., 3], pixels[..., 3])


def test_photos_of_different_sizes_in_a_list_keep_their_sizes(stocked):
    folder = stocked.base / "input" / "several"
    folder.mkdir(exist_ok=True)
    sizes = {(77, 101), (64, 64), (90, 50)}
    for number, size in enumerate(sizes):
        Image.effect_noise(size, 40).convert("RGB").save(folder / f"{number}.png")
    graph = read("01 Restore a photo (works now).json", "workflows/api")
    loader = node_of(graph, "LoadImage")
    graph[loader] = {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": "several"}}
    del graph[node_of(graph, "FluxIRDecodePhoto")]["inputs"]["mask"]
    graph[node_of(graph, "KSampler")]["inputs"]["steps"] = 1
    saved = stocked.run(graph)[node_of(graph, "SaveImage")]
    assert {Image.open(path).size for path in saved} == sizes and len(saved) == 3


def test_a_folder_of_photos_is_restored_under_their_names(stocked):
    folder, out = stocked.base / "input" / "holiday", stocked.base / "output" / "holiday done"
    (folder / "day 2").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    sizes = {"a dog.jpg": (77, 101), "broken.jpg": None, "day 2/sea.png": (64, 48), "day 2/sun.png": (50, 90)}
    for name, size in sizes.items():
        if size:
            Image.effect_noise(size, 40).convert("RGB").save(folder / name)
        else:
            (folder / name).write_bytes(b"no photo")
    graph = read(FOLDER, "workflows/api")
    loader = node_of(graph, "FluxIRLoadNextPhotos")
    graph[loader]["inputs"] |= {"folder": "holiday", "results": "holiday done"}
    graph[node_of(graph, "FluxIRSavePhotoByName")]["inputs"]["results"] = "holiday done"
    graph[node_of(graph, "KSampler")]["inputs"]["steps"] = 1

    def results():
        return {path.relative_to(out).as_posix(): Image.open(path).size for path in out.rglob("*") if path.is_file()}

    stocked.run(graph)
    assert results() == {"a dog.jpg": sizes["a dog.jpg"]}  # one photo a run
    first = (out / "a dog.jpg").read_bytes()
    graph[loader]["inputs"]["count"] = 10
    stocked.run(graph)  # goes on, past the file that cannot be read
    assert results() == {name: size for name, size in sizes.items() if size}
    assert (out / "a dog.jpg").read_bytes() == first
    stocked.run(graph)  # nothing is left but that file: nothing happens
    assert results() == {name: size for name, size in sizes.items() if size}


def test_a_folder_without_photos_and_one_outside_are_refused(stocked):
    graph = read(FOLDER, "workflows/api")
    loader = node_of(graph, "FluxIRLoadNextPhotos")
    (stocked.base / "input" / "empty").mkdir(exist_ok=True)
    for folder, message in (
        ("empty", "Load Next Photos: there is no photo in "),
        ("missing", "Load Next Photos: there is no folder "),
        ("../output", "Load Next Photos: folder is '../output', which lies outside "),
    ):
        graph[loader]["inputs"]["folder"] = folder
        with pytest.raises(ComfyUIError, match=message):
            stocked.run(graph)


def test_a_wrong_latent_size_reaches_the_artist_as_one_sentence(stocked):
    graph = read("01 Restore a photo (works now).json", "workflows/api")
    graph["small"] = {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 80, "batch_size": 1}}
    graph[node_of(graph, "KSampler")]["inputs"]["latent_image"] = ["small", 0]
    message = "^KSampler: Apply FluxIR Adapter: the degraded photo has 112 x 80 pixels but the sampled latent 64 x 80;"
    with pytest.raises(ComfyUIError, match=message):
        stocked.run(graph)
