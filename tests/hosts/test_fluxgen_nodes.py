"""Select Images and Save Image Pairs in the real ComfyUI of this process, and the shipped graph's data set on servers."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.degrade.basic import gaussian_blur
from comfyui_fluxir.fluxir_core.verify.ensemble import Ensemble
from comfyui_fluxir.fluxir_core.verify.niqe import NIQE
from comfyui_fluxir.fluxir_core.verify.statistics import CoherentGradient
from comfyui_fluxir.training.miniature.scenes import load_photo
from PIL import Image

from .workflow_host import MINIATURE, node_of, read, stock


@pytest.fixture(scope="module")
def nodes(comfy):
    from comfyui_fluxir.nodes import fluxgen

    return fluxgen


@pytest.fixture(scope="module")
def batch():
    """Five crops of a photo as IMAGE (5, 64, 80, 3), the third blurred, in steps of 8 bits."""
    photo = torch.from_numpy(load_photo("coffee").copy()).float() / 255
    crops = torch.stack([photo[40 * n : 40 * n + 64, 60 * n : 60 * n + 80] for n in range(1, 6)])
    crops[2] = gaussian_blur(crops[2].movedim(-1, 0), 6).movedim(0, -1)
    return (crops * 255).round() / 255


class Verified:
    """A verifier of given scores, in the order in which images are shown."""

    def __init__(self, *scores):
        self.scores, self.ensemble = iter(scores), Ensemble([NIQE()])

    def measure(self, images):
        assert len(images) == 1
        return {"given": torch.tensor([next(self.scores)])}


def choose(nodes, images, verifier, keep=0.95):
    with torch.inference_mode():
        return nodes.SelectImages.execute(images, verifier, keep).result


def test_the_worst_of_each_metric_are_dropped_and_the_table_says_why(nodes, batch, comfy):
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    metrics = (NIQE(), CoherentGradient())
    kept, dropped, sheet, table = choose(nodes, batch, LoadedVerifier(Ensemble(metrics)), 0.8)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["file"] for row in rows] == ["1", "2", "3", "4", "5"]
    for metric in metrics:
        values = metric(batch.movedim(-1, 1)).double().numpy()
        below = [metric.name in row["dropped by"].split() for row in rows]
        assert below == list(values < np.percentile(values, 20)) and any(below)
    stay = [row["kept"] == "yes" for row in rows]
    assert torch.equal(kept, batch[stay]) and torch.equal(dropped, batch[[not s for s in stay]])
    assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and 0 <= sheet.min() and sheet.max() <= 1 and sheet.std() > 0


def test_where_nothing_is_dropped_what_is_behind_that_output_does_not_run(nodes, batch):
    from comfy_execution.graph_utils import ExecutionBlocker

    kept, dropped, _, _ = choose(nodes, batch, Verified(1.0, 1.0, 1.0, 1.0, 1.0))
    assert torch.equal(kept, batch) and isinstance(dropped, ExecutionBlocker) and dropped.message is None


def test_an_image_with_nan_is_dropped_and_alpha_is_carried(nodes, batch):
    given = torch.cat([batch, torch.rand(5, 64, 80, 1)], -1)
    given[1, 2, 3, 0] = torch.nan
    kept, dropped, sheet, _ = choose(nodes, given, Verified(1.0, -torch.inf, 1.0, 1.0, 1.0))
    assert torch.equal(kept, given[[0, 2, 3, 4]]) and dropped.shape == (1, 64, 80, 4) and sheet.isfinite().all()


def test_that_nothing_is_left_is_said_in_one_sentence(nodes, batch):
    class Divided(Verified):
        def measure(self, images):
            number = next(self.scores)
            return {"a": torch.tensor([number]), "b": torch.tensor([-number])}

    sentence = r"^Select Images: none of 2 images is above .*; raise keep from 0.95 or give more images\.$"
    with pytest.raises(ValueError, match=sentence):
        choose(nodes, batch[:2], Divided(1.0, 2.0))
    with pytest.raises(ValueError, match="^Select Images: no metric has a number"):
        choose(nodes, batch[:1], Verified(torch.nan))


def test_choosing_can_be_interrupted(nodes, batch, comfy):
    nodes.comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(nodes.comfy.model_management.InterruptProcessingException):
        choose(nodes, batch, Verified(1.0))


@pytest.fixture
def output(nodes, tmp_path):
    """ComfyUI's output folder, for this test."""
    before = nodes.folder_paths.get_output_directory()
    nodes.folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    nodes.folder_paths.set_output_directory(before)


def save(nodes, good, degraded, prefix="sets/v1.5", prompt=""):
    return Path(nodes.SaveImagePairs.execute(good, degraded, prefix, prompt).result[0])


def test_pairs_are_saved_without_loss_and_every_run_adds_a_shard(nodes, batch, output):
    degraded = batch.flip(0)
    first, second = save(nodes, batch, degraded), save(nodes, batch[:2], degraded[:2], prompt="a cup")
    assert [first, second] == [output / "sets" / f"v1.5_0000{n}_.tar" for n in (1, 2)] == sorted((output / "sets").iterdir())
    source = ImageSource(output / "sets")
    assert len(source) == 7 and source.skipped == []
    for number, image in enumerate(batch.movedim(-1, 1)):
        assert torch.equal(source[number].hq, image) and torch.equal(source[number].lq, degraded.movedim(-1, 1)[number])
    assert source[6].metadata == {"prompt": "a cup", "width": 80, "height": 64}


@pytest.mark.parametrize(
    ("prefix", "stem"), [("sets/", "sets/pairs"), ("sets//", "sets/pairs"), ("", "pairs"), ("  ", "pairs"), ("sets/.", "sets")]
)
def test_an_existing_shard_is_never_opened_again(nodes, batch, output, prefix, stem):
    first = save(nodes, batch[:2], batch[:2], prefix)
    before = first.read_bytes()
    second = save(nodes, batch, batch, prefix)
    assert first == output / f"{stem}_00001_.tar" and second == output / f"{stem}_00002_.tar" and first.read_bytes() == before
    assert [len(ImageSource(path)) for path in (first, second)] == [2, 5]


@pytest.mark.parametrize("prefix", [300 * "ü", "sets/" + 300 * "x", "a\0b", "../up", "/tmp/up"])
def test_a_name_that_no_file_can_have_is_refused_in_one_sentence(nodes, batch, output, prefix):
    with pytest.raises(ValueError, match=r"^Save Image Pairs: [^\n]* in the output folder[^\n]*; (give|choose)[^\n]*\.$"):
        save(nodes, batch, batch, prefix)
    assert not [path for path in output.rglob("*") if path.is_file()] and not (output.parent / "up").exists()


@pytest.mark.parametrize("prefix", ["sets/v1.5", "sets/"])
def test_a_run_that_is_canceled_or_fails_leaves_nothing_and_hides_nothing(nodes, batch, output, prefix, monkeypatch):
    finished = save(nodes, batch, batch, prefix)

    def fails(_):
        raise OSError("no space")

    with pytest.raises(nodes.comfy.model_management.InterruptProcessingException):
        nodes.comfy.model_management.interrupt_current_processing(True)
        save(nodes, batch, batch, prefix)
    monkeypatch.setattr(nodes, "png_bytes", fails)
    with pytest.raises(ValueError, match=r"^Save Image Pairs: '.*' cannot be written in the output folder \(no space\); choose"):
        save(nodes, batch, batch, prefix)
    assert list((output / "sets").iterdir()) == [finished]


def test_two_runs_at_a_time_write_two_shards(nodes, batch, output):
    from comfyui_fluxir.fluxir_core.data.shards import NewShard

    paths = [output / f"{n}.tar" for n in range(3)]
    paths[0].write_bytes(b"somebody's")
    with NewShard(paths) as one, NewShard(paths) as other:
        assert (one.path, other.path) == (paths[1], paths[2])
    assert paths[0].read_bytes() == b"somebody's" and sorted(output.iterdir()) == paths


def test_images_that_are_no_pairs_are_refused(nodes, batch, output):
    with pytest.raises(ValueError, match="^Save Image Pairs: the good images are 5 of 80 x 64, the degraded 1 of 80 x 64; give"):
        save(nodes, batch, batch[:1])
    with pytest.raises(ValueError, match="^Save Image Pairs: degraded holds NaN or infinity in image 1"):
        save(nodes, batch, batch * torch.nan)
    with pytest.raises(Exception, match="leads to no place in the output folder"):
        save(nodes, batch, batch, prefix="../escape")
    assert not list(output.rglob("*.tar"))


def test_the_shipped_graph_makes_a_data_set_of_what_it_keeps(server, tmp_path):
    if not list(MINIATURE.glob("*/*.safetensors")):
        stock(server.base, tmp_path)
    graph = read("11 Make pairs to train on.json", "workflows/api")
    graph[node_of(graph, "KSampler")]["inputs"].update(steps=2, seed=11)
    graph[node_of(graph, "FluxIRSaveImagePairs")]["inputs"]["filename_prefix"] = f"{tmp_path.name}/pairs"
    keep, sheets = graph[node_of(graph, "FluxIRSelectImages")], []
    for share in (0.8, 1.0):
        keep["inputs"]["keep"] = share
        sheets.append(server.run(graph)[node_of(graph, "SaveImage")][0])
    source = ImageSource(server.base / "output" / tmp_path.name)
    assert set(source.parts()) == {"pairs_00001_", "pairs_00002_"}
    first, second = map(len, source.parts().values())
    assert 0 < first < second <= 6
    assert source[0].hq.shape == (3, 96, 128) and not torch.equal(source[0].hq, source[0].lq)
    assert not np.array_equal(*(np.asarray(Image.open(sheet)) for sheet in sheets))
