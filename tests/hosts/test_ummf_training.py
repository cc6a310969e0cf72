"""`fluxir train ummf`: from a configuration and a folder of photos to a LoRA that the hosts load, resumable bit for bit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from comfyui_fluxir.fluxir_core.adapter import OMINI, ConditionMode, LoRA, load_lora
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.fusion import AdditionHost, ControlNetHost
from comfyui_fluxir.training.host import call_transformer
from comfyui_fluxir.training.miniature.autoencoder import NarrowTAESD, narrowed, widen
from comfyui_fluxir.training.miniature.checkpoint import Checkpoint
from comfyui_fluxir.training.model_folder import load_models
from comfyui_fluxir.training.train_ummf import CONFIGS, UMMFConfig, train
from comfyui_fluxir.training.ummf import UMMFRecipe, train_ummf
from comfyui_fluxir.training.ummf_host import UMMFHost

from ..unit.test_training import batches, flow_error, host as fluxir_host
from .tiny import TINY, write_tiny


def ummf_host(mode=OMINI):
    transformer = fluxir_host().transformer
    from comfyui_fluxir.training.base_model import flux_dimensions

    return UMMFHost(transformer, LoRA.new(flux_dimensions(transformer), 4), mode)


def recipe(**options):
    return UMMFRecipe(**{"steps": 80, "batch": 8, "guidance": 4.0, "average": 0.8, "drop_image": 0.0, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model folder with photos beside it, one of them too small."""
    folder = tmp_path_factory.mktemp("ummf")
    write_tiny(folder)
    (folder / "photos" / "more").mkdir(parents=True)
    for i, (name, size) in enumerate([("a.png", (72, 80)), ("more/b.jpg", (64, 90)), ("small.png", (20, 20))]):
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / name)
    return folder


def config(folder, **options):
    text = {"model": str(folder), "data": str(folder / "photos"), "size": 64, "rank": 4,
            "recipe": {"steps": 4, "batch": 2, "guidance": 4}, **options}  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(json.dumps(text))  # JSON is YAML
    return path


@pytest.mark.parametrize("attention", ["joint", "alone"])
def test_the_lora_learns_to_read_the_picture(tmp_path, attention):
    trained = ummf_host(ConditionMode(attention=attention))
    before = flow_error(trained, trained.adapter)
    adapter = train_ummf(trained, batches, recipe(), Checkpoint(tmp_path / "a.pt"))
    after = flow_error(trained, adapter)
    assert after < 0.9 * before


def test_a_resumed_run_ends_bit_identical(tmp_path):
    class Killed(Exception):
        pass

    def until_4(step):
        if step == 4:
            raise Killed
        return batches(step)

    options = recipe(steps=6, drop_image=0.3, drop_text=0.3)
    whole = train_ummf(ummf_host(), batches, options, Checkpoint(tmp_path / "whole.pt"))
    path = tmp_path / "resumed.pt"
    with pytest.raises(Killed):
        train_ummf(ummf_host(), until_4, options, Checkpoint(path, every=0))
    resumed = train_ummf(ummf_host(), batches, options, Checkpoint(path))
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(one, other), name


def test_the_command_writes_a_file_that_restores(folder, tmp_path):
    out = folder / "loras" / "tiny-ummf.safetensors"
    main(["train", "ummf", "--config", str(config(folder)), "--work", str(tmp_path), "--out", str(out)])
    loaded = load_lora(out)
    assert loaded.mode == OMINI and loaded.dims == TINY and not loaded.report.missing and not loaded.report.unused
    assert loaded.metadata["data"] == "3 photos of the folder photos, degraded at random"
    written = json.loads(loaded.metadata["training_config"])
    assert (written["rank"], written["recipe"]["steps"], written["mode"]["timestep"]) == (4, 4, 0.0)
    learnt = [name for name, value in loaded.state_dict.items() if name.endswith("up.weight") and value.any()]
    # All but what follows the last block's attention, where FLUX drops the condition, and its queries' norms.
    assert len(learnt) >= len(loaded.shapes) - 4
    report = folder / "report.json"
    restored = [folder / f"{adapter}.png" for adapter in ("ummf", "fluxir")]
    for path, adapter in zip(restored, ("ummf", "fluxir")):
        main(["restore", str(folder / "photos" / "a.png"), str(path), "--model", str(folder), "--adapter", adapter,
              "--steps", "2", "--json", str(report)])  # fmt: skip
    assert json.loads(report.read_text())["adapter"] == "fluxir"
    one, other = (np.asarray(Image.open(path)).astype(int) for path in restored)
    assert one.shape == other.shape == (72, 80, 3) and abs(one - other).mean() > 0.1


def test_a_search_works_with_ummf(folder, tmp_path):
    out = folder / "loras" / "tiny-ummf.safetensors"
    train(UMMFConfig.load(config(folder, mode={"attention": "alone"})), tmp_path, out)
    report = tmp_path / "report.json"
    main(["restore", str(folder / "photos" / "a.png"), str(tmp_path / "out.png"), "--model", str(folder), "--adapter", "ummf",
          "--preset", "best_of_n", "--steps", "2", "--json", str(report)])  # fmt: skip
    found = json.loads(report.read_text())
    assert found["nfe"] == found["nfe_planned"] and found["adapter"] == "ummf"


def test_a_folder_without_a_lora_is_refused(tmp_path):
    write_tiny(tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit, match="put a UMMF LoRA there, or use fluxir"):
        main(["restore", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--model", str(tmp_path), "--adapter", "ummf"])


def test_the_shipped_configurations_are_the_papers_and_the_miniatures():
    paper = UMMFConfig.load(CONFIGS / "ummf.yaml")
    assert (paper.rank, paper.size, paper.recipe.steps, paper.mode) == (16, 512, 30_000, OMINI)
    assert paper.recipe == UMMFRecipe()
    miniature = UMMFConfig.load(CONFIGS / "ummf-miniature.yaml")
    assert (miniature.model, miniature.data, miniature.mode.constant) == ("miniature", "miniature", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 3}, "has no setting 'ranks'; use model, data"),
        ({"rank": "many"}, "rank is 'many', but a int is expected"),
        ({"size": True}, "size is True"),
        ({"mode": {"positions": "left"}}, "positions is 'left'; use 'shared' or 'offset'"),
        ({"mode": 3}, "mode is no mapping"),
        ({"recipe": {"steps": 2.5}}, "recipe: steps is 2.5"),
        ({"data": "nowhere"}, "nowhere holds no photo"),
        ({"size": 256}, "no photo is 256 pixels a side"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(folder, tmp_path, options, message):
    with pytest.raises(SystemExit) as refused:
        main(["train", "ummf", "--config", str(config(folder, **options)), "--work", str(tmp_path), "--out",
              str(tmp_path / "x.safetensors")])  # fmt: skip
    assert message in str(refused.value) and not (tmp_path / "x.safetensors").exists()


def test_a_missing_configuration_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="cannot be read as a configuration"):
        main(["train", "ummf", "--config", str(tmp_path / "none.yaml")])


def test_the_bundled_autoencoder_is_narrowed_exactly():
    torch.manual_seed(0)
    net = NarrowTAESD()
    for (name, one), other in zip(net.state_dict().items(), narrowed(widen(net)).state_dict().values()):
        assert torch.equal(one, other), name
    from comfyui_fluxir.training.model_folder import MINIATURE

    (vae,) = (MINIATURE / "vae").glob("*.safetensors")
    bundled, whole = narrowed(load_file(vae)), load_models("miniature").vae
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(bundled.encode(picture), whole.encode(picture), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [lambda t: AdditionHost(t, 4), lambda t: ControlNetHost(t, 1, 1)], ids=["addition", "controlnet"])
def test_the_papers_rivals_start_as_the_bare_model_and_learn(tmp_path, make):
    transformer = fluxir_host().transformer
    rival = make(transformer)
    batch, t = batches(0), torch.full((8,), 0.5)
    bare = call_transformer(transformer, batch.clean, t, batch.text, batch.pooled, batch.image_ids, torch.full((8,), 4.0))
    with torch.no_grad():
        condition = rival.prepare(batch.degraded, batch.text, batch.pooled, batch.image_ids)
        first = rival.velocity(batch.clean, t, condition, torch.full((8,), 4.0))
    torch.testing.assert_close(first, bare, rtol=1e-5, atol=1e-5)
    before = flow_error(rival, rival.adapter)
    trained = train_ummf(rival, batches, recipe(), Checkpoint(tmp_path / "a.pt"))
    assert flow_error(rival, trained) < 0.9 * before
