"""`fluxir train fluxir|ummf`: from a configuration and images to a file that the hosts load."""

import json
import shutil
import weakref

import numpy as np
import pytest
import torch
import yaml
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.image.files import load_image
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.fluxir_core.ummf.mode import OMINI
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.engine.run_folder import RunFolder
from comfyui_fluxir.training.recipes.config import CONFIGS, RECIPES, FluxIRConfig
from comfyui_fluxir.training.recipes.export import write_adapter
from comfyui_fluxir.training.recipes.fluxir import FluxIRRecipe
from comfyui_fluxir.training.recipes.ummf import UMMFRecipe
from PIL import Image

from .tiny import TINY, write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model folder with photos beside it: good ones, one too small and one that is no image."""
    folder = tmp_path_factory.mktemp("recipes")
    write_tiny(folder)
    (folder / "photos" / "more").mkdir(parents=True)
    sizes = [("a.png", (72, 80)), ("more/b.jpg", (64, 90)), ("c.png", (64, 64)), ("d.png", (80, 70)), ("small.png", (20, 20))]
    for i, (name, size) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / name)
    (folder / "photos" / "empty.png").write_bytes(b"")
    return folder


def config(folder, **sections):
    """A short run's configuration file; `sections` add to or replace the values of its sections."""
    values = {
        "base": {"folder": str(folder), "precision": "float32"},
        "data": {"images": str(folder / "photos"), "buckets": ["64x64", "48x64"], "text_tokens": 8, "held_out": 1},
        "adapter": {"rank": 4},
        "optimizer": {"learning_rate": 3e-3, "average": 0.5},
        "run": {"steps": 4, "batch": 2, "micro_batch": 1, "validate_every": 2, "checkpoint_every": 2},
        "log": [],
    }
    for name, given in sections.items():
        values[name] = {**values.get(name, {}), **given} if isinstance(given, dict) else given
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def train(recipe, path, work):
    out = work / "out.safetensors"
    main(["train", recipe, "--config", path, "--work", str(work), "--out", str(out)])
    return out


def test_fluxir_trains_validates_and_writes_an_adapter(folder, tmp_path, caplog):
    out = train("fluxir", config(folder, recipe={"pixel_crop": 4}, log=["tensorboard"]), tmp_path)
    loaded = load_adapter(out)
    assert loaded.config.dims == TINY and loaded.config.rank == 4 and not loaded.report.missing
    assert loaded.metadata["data"] == "3 images of photos" and loaded.metadata["training_steps"] == "4"
    assert json.loads(loaded.metadata["training_config"])["recipe"]["pixel_crop"] == 4
    assert loaded.state_dict["se_image.0.excite.weight"].any() and loaded.state_dict["lq_in.weight"].any()
    assert torch.equal(
        loaded.state_dict["null_text"],
        load_adapter(folder / "fluxir_adapters" / "mini-flux-fluxir.safetensors").state_dict["null_text"],
    )
    for said in ("small.png is skipped: 20x20 is smaller than every bucket", "empty.png is skipped"):
        assert said in caplog.text
    sheets = [load_image(tmp_path / "samples" / f"step-{step:08d}.png") for step in (2, 4)]
    degraded, restored, original = sheets[1].chunk(3, 2)
    assert not torch.equal(*sheets) and not torch.equal(degraded, restored) and not torch.equal(restored, original)
    assert list((tmp_path / "log").rglob("events.out.tfevents*"))


def test_ummf_trains_and_its_lora_restores_and_searches(folder, tmp_path):
    modes = {"adapter": {"mode": {"attention": "alone"}}, "optimizer": {"name": "prodigy", "learning_rate": 1.0}}
    out = train("ummf", config(folder, **modes), tmp_path)
    loaded = load_lora(out)
    assert loaded.dims == TINY and loaded.mode.attention == "alone" and not loaded.report.missing and not loaded.report.unused
    (folder / "loras").mkdir(exist_ok=True)
    out.replace(folder / "loras" / "tiny-ummf.safetensors")
    report = tmp_path / "report.json"
    for name, options in (("ummf", ["--preset", "best_of_n"]), ("fluxir", [])):
        main(
            [
                "restore",
                str(folder / "photos" / "a.png"),
                str(tmp_path / f"{name}.png"),
                "--model",
                str(folder),
                "--adapter",
                name,
                "--steps",
                "2",
                "--json",
                str(report),
                *options,
            ]
        )
        found = json.loads(report.read_text(encoding="utf-8"))
        assert found["adapter"] == name and (not options or found["nfe"] == found["nfe_planned"])
    one, other = (load_image(tmp_path / f"{name}.png") for name in ("ummf", "fluxir"))
    assert one.shape == other.shape == (3, 72, 80) and (one - other).abs().mean() > 0.0005


def test_the_cache_changes_no_batch_and_is_not_made_twice(folder, tmp_path):
    runs = {}
    for name, data in (("cached", {}), ("fresh", {"cache": False})):
        runs[name] = load_adapter(train("fluxir", config(folder, data=data, run={"steps": 2}), tmp_path / name)).state_dict
    assert all(torch.equal(value, runs["fresh"][name]) for name, value in runs["cached"].items())
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cached" / "latents").rglob("*.safetensors")}
    train("fluxir", config(folder, run={"steps": 2}), tmp_path / "cached")
    assert len(made) == 4 and {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.parametrize("cache", [True, False])
def test_an_image_that_breaks_off_is_reported_and_does_without(folder, tmp_path, caplog, cache):
    images = tmp_path / "images"
    shutil.copytree(folder / "photos", images)
    whole = (images / "a.png").read_bytes()
    for i in range(3):
        (images / f"cut{i}.png").write_bytes(whole[: 6000 + i])
    data = {"images": str(images), "buckets": ["64x64"], "cache": cache}
    out = train("fluxir", config(folder, data=data, run={"steps": 6}), tmp_path)
    assert "cut0.png" in caplog.text and load_adapter(out).metadata["training_steps"] == "6"
    expected = "3 images" if cache else "6 images"  # without a cache the broken ones are found on the way
    assert load_adapter(out).metadata["data"] == f"{expected} of images"


@pytest.mark.parametrize("precision", ["bf16", "fp8", "nf4"])
def test_a_smaller_base_gives_nearly_the_same_gradients(folder, tmp_path, precision):
    from comfyui_fluxir.training.diffusers_host.model_folder import open_transformer
    from comfyui_fluxir.training.engine.quantize import quantize

    exact, small = open_transformer(folder), quantize(open_transformer(folder), precision)
    heavy = [p for name, p in small.named_parameters() if "blocks" in name and p.numel() > 2**12]
    assert sum(p.numel() * p.element_size() for p in heavy) < {"bf16": 2.1, "fp8": 1.1, "nf4": 0.6}[precision] * sum(
        p.numel() for name, p in exact.named_parameters() if "blocks" in name
    )
    out = train("fluxir", config(folder, base={"precision": precision}, run={"steps": 2}), tmp_path)
    reference = train("fluxir", config(folder, run={"steps": 2}), tmp_path / "exact")
    learned, exactly = (load_adapter(path).state_dict["se_image.0.excite.weight"].flatten() for path in (out, reference))
    assert torch.cosine_similarity(learned.float(), exactly.float(), 0) > {"bf16": 0.9, "fp8": 0.6, "nf4": 0.4}[precision]


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_a_quantized_base_reaches_the_device_block_by_block(folder, monkeypatch, precision):
    from comfyui_fluxir.training.diffusers_host.model_folder import open_transformer
    from comfyui_fluxir.training.recipes.train import freeze

    transformer, device, moved = open_transformer(folder, torch.bfloat16), torch.device("cpu", 0), []  # a device it is not on
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def small(block):
        return all(p.element_size() == 1 for p in block.parameters() if p.ndim == 2)

    def watch(module, name):
        to = module.to

        def watched(*given):
            moved.append((name, given, [small(block) for block in blocks]))
            return to(*given)

        monkeypatch.setattr(module, "to", watched)

    for index, module in enumerate([*blocks, transformer]):
        watch(module, index)
    freeze(transformer, precision, False, device)
    assert len(blocks) > 1 and moved == [(i, (device,), [True] * i + [False] * (len(blocks) - i)) for i in range(len(blocks) + 1)]


def test_a_run_puts_its_base_on_its_device_and_leaves_a_sharded_one_to_fsdp(folder, tmp_path, monkeypatch):
    from comfyui_fluxir.training.recipes import train as train_recipe

    placed, quantize = [], train_recipe.quantize
    monkeypatch.setattr(train_recipe, "quantize", lambda *given: placed.append(given[1:]) or quantize(*given))
    monkeypatch.setattr(train_recipe, "fit", lambda *given: None)
    monkeypatch.setattr(train_recipe, "write_adapter", lambda *given: None)
    for sharding in ("ddp", "fsdp"):
        train("fluxir", config(folder, run={"sharding": sharding}), tmp_path / sharding)
    assert placed == [("float32", torch.device("cpu")), ("float32", "cpu")]


def test_a_run_does_not_go_on_with_other_images(folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder / "photos", images)
    data = {"images": str(images)}
    train("fluxir", config(folder, data=data, run={"steps": 2}), tmp_path / "work")
    (images / "c.png").unlink()
    with pytest.raises(SystemExit, match="holds another run's checkpoints .its images differ.; give another --work"):
        train("fluxir", config(folder, data=data), tmp_path / "work")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-7], None], ids=["empty", "cut off", "gone"])
def test_what_the_cache_has_lost_is_computed_again(folder, tmp_path, damage):
    first = load_adapter(train("fluxir", config(folder), tmp_path)).state_dict
    for step in RunFolder(tmp_path).steps():
        RunFolder(tmp_path).path(step).unlink()
    for path in [*(tmp_path / "latents").rglob("*.safetensors"), *(tmp_path / "prompts").rglob("*.safetensors")]:
        path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    again = load_adapter(train("fluxir", config(folder), tmp_path)).state_dict
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_an_embedding_lost_during_a_run_is_computed_again(folder, tmp_path):
    from comfyui_fluxir.training.data.batches import ImageBatches
    from comfyui_fluxir.training.recipes.config import DataConfig

    embedded = []

    def embed(prompt):
        embedded.append(prompt)
        return torch.ones(8, 16, dtype=torch.bfloat16), torch.ones(4, dtype=torch.bfloat16)

    data = DataConfig(str(folder / "photos"), ["48x64"], cache=False, text_tokens=8, held_out=0)
    batches = ImageBatches(data, 2, lambda images: torch.zeros(len(images), 16, 8, 6), embed, tmp_path, "model")
    for path in (tmp_path / "prompts").rglob("*.safetensors"):
        path.write_bytes(b"")
    batch = batches(0, range(2))
    assert embedded == ["", ""] and batch.text.dtype == torch.float32 and (batch.text == 1).all()
    assert batches.empty[0].dtype == torch.bfloat16


def test_the_text_encoders_are_gone_when_the_data_is_encoded(folder, tmp_path, monkeypatch):
    from comfyui_fluxir.training.diffusers_host.model_folder import open_vae
    from comfyui_fluxir.training.engine.processes import make_accelerator
    from comfyui_fluxir.training.recipes import train as train_recipe

    class Encoder:
        def __call__(self, prompt):
            return torch.zeros(8, 16), torch.zeros(4)

    alive = []

    def load(*_given):
        encoder = Encoder()
        alive.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(train_recipe, "load_prompt_encoder", load)
    settings = (open_vae(folder), tmp_path, make_accelerator("ddp", "no"), torch.float32)
    batches = train_recipe.make_batches(FluxIRConfig.load(config(folder)), *settings)
    assert batches.empty[0].shape == (8, 16) and [each() for each in alive] == [None]


def test_a_cached_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    import os

    from comfyui_fluxir.training.data.cache import TensorCache

    cache, synced = TensorCache(tmp_path, "one"), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append("key" in cache))
    cache.put("key", {"a": torch.ones(2)})
    assert synced == [False] and "key" in cache and torch.equal(cache.get("key")["a"], torch.ones(2))


def test_export_takes_any_checkpoint_and_either_weights(folder, tmp_path):
    train("fluxir", config(folder), tmp_path)
    assert RunFolder(tmp_path).steps() == [2, 4]
    exported = {}
    for name, options in (("average", []), ("last", ["--weights", "last"]), ("earlier", ["--step", "2"])):
        main(["export", str(tmp_path), str(tmp_path / f"{name}.safetensors"), *options])
        exported[name] = load_adapter(tmp_path / f"{name}.safetensors")
    assert exported["earlier"].metadata["training_steps"] == "2"
    weights = [loaded.state_dict["se_image.0.excite.weight"] for loaded in exported.values()]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    saved = RunFolder(tmp_path).load()["adapter"]["se_image.0.excite.weight"]
    assert torch.equal(weights[1], saved.bfloat16())
    with pytest.raises(SystemExit, match="holds no checkpoint; give the --work folder"):
        main(["export", str(folder), str(tmp_path / "none.safetensors")])
    with pytest.raises(ValueError, match="holds no checkpoint after 3 steps; it has"):
        write_adapter(tmp_path, tmp_path / "none.safetensors", step=3)


def shipped_config(path):
    """A file of training/configs, read by the recipe that its name begins with; the seven tasks are `fluxir`'s too."""
    name = path.stem.partition("-")[0]
    return RECIPES["fluxir" if name == "tasks" else name].load(path)


def test_the_shipped_configurations_are_the_papers_the_presets_and_the_miniatures():
    shipped = {path.stem: shipped_config(path) for path in CONFIGS.glob("*.yaml")}
    assert len(shipped) == 15  # five recipes, each for 24 GB, for 80 GB and for the miniature
    paper = shipped["fluxir"]
    assert paper.recipe.epsilon == 0.05 and paper.recipe.alpha == 1 and paper.optimizer.learning_rate == 1e-5
    assert paper.run.batch == 64 and paper.data.sizes == [(768, 1024), (768, 768), (768, 512)] and paper.adapter.guidance == 4
    ummf = shipped["ummf"]
    assert (ummf.adapter.rank, ummf.data.sizes, ummf.run.steps, ummf.adapter.mode) == (16, [(512, 512)], 30_000, OMINI)
    assert ummf.recipe == UMMFRecipe() and ummf.optimizer.name == "prodigy"
    for name in ("fluxir-24gb", "ummf-24gb"):
        assert shipped[name].base.precision == "nf4" and shipped[name].base.gradient_checkpointing
    miniature = shipped["ummf-miniature"]
    assert (miniature.base.folder, miniature.data.images, miniature.adapter.mode.constant) == ("miniature", "miniature", True)
    from comfyui_fluxir.training.miniature.recipe import OPTIMIZER, RECIPE

    assert (shipped["fluxir-miniature"].recipe, shipped["fluxir-miniature"].optimizer) == (RECIPE, OPTIMIZER)
    assert FluxIRRecipe() == paper.recipe.__class__(**{**paper.recipe.__dict__, "pixel_crop": FluxIRRecipe().pixel_crop})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"ranks": 3}, "has no setting 'ranks'; use base, data"),
        ({"adapter": {"rank": "many"}}, "rank is 'many', but a int | None is expected"),
        ({"run": {"batch": True}}, "batch is True"),
        ({"run": {"steps": 2.5}}, "run: steps is 2.5"),
        ({"run": {"sharding": "zero"}}, "sharding is 'zero'; use 'ddp' or 'fsdp'"),
        ({"run": 3}, "run is no mapping"),
        ({"base": {"precision": "int3"}}, "precision is 'int3'; use float32, bf16, fp8, nf4"),
        ({"base": {"folder": "/absent/model"}}, "/absent/model"),
        ({"data": {"buckets": ["64 by 64"]}}, "the bucket '64 by 64' is no size"),
        ({"data": {"buckets": [64]}}, "buckets is [64]"),
        ({"data": {"crop": "left"}}, "crop is 'left'; use 'center' or 'random'"),
        ({"data": {"images": "/absent/photos"}}, "/absent/photos is no folder"),
        ({"data": {"buckets": ["256x256"]}}, "no image is left to train on"),
        ({"data": {"versions": 0}}, "versions is 0; use 1 or more"),
        ({"data": {"degradation": {"fog": 1}}}, "data: degradation: there is no degradation 'fog'; use some of mixture, tasks"),
        ({"data": {"degradation": {"snow": 0}}}, "no degradation has a share above 0; give one, such as mixture: 1."),
        ({"data": {"degradation": {"snow": "much"}}}, "degradation: snow is 'much', but a float is expected"),
        ({"data": {"degradation": "tasks"}}, "degradation is 'tasks'"),
        ({"keep": 0.5}, "keep is 0.5; use 0 or more, below 1, and more than 0 with a start only"),
        ({"data": {"held_out": 9}}, "with 9 held out"),
        ({"run": {"sharding": "fsdp"}, "optimizer": {"name": "prodigy"}}, "fsdp does not go with precision float32 and prodigy"),
        ({"run": {"sharding": "fsdp"}, "base": {"precision": "nf4"}}, "fsdp does not go with precision nf4 and adamw"),
        ({"optimizer": {"name": "lion"}}, "name is 'lion'; use adamw, adamw8bit, prodigy"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(folder, tmp_path, sections, message):
    with pytest.raises(SystemExit) as refused:
        train("fluxir", config(folder, **sections), tmp_path)
    assert message in str(refused.value) and not (tmp_path / "out.safetensors").exists()


def test_a_missing_configuration_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="cannot be read as a configuration"):
        main(["train", "ummf", "--config", str(tmp_path / "none.yaml")])
