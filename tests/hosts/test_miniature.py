"""The bundled miniature: how it is made, what it weighs, and the gates it must pass."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.flux.tokens import pack_latents
from comfyui_fluxir.fluxir_core.image.files import load_image, save_image
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.miniature import FOLDER as MINIATURE
from comfyui_fluxir.training.miniature.autoencoder import NarrowTAESD, open_autoencoder
from comfyui_fluxir.training.miniature.batches import MiniatureBatches
from comfyui_fluxir.training.miniature.latents import PairStream
from comfyui_fluxir.training.miniature.recipe import OPTIMIZER, RECIPE, MiniatureSize
from comfyui_fluxir.training.miniature.stream import ImageStream
from comfyui_fluxir.training.recipes.config import CONFIGS, DistillConfig, FluxIRConfig, ReinforceConfig, UMMFConfig
from safetensors import safe_open
from safetensors.torch import save_file

LIMIT_MB, FILE_MB = 40, 16
KNOWN_MISSES = {
    "noise: restored over the autoencoder alone, at least 1 dB",
    "strong: GMSD of restored below the autoencoder's alone",
}
"""docs/results/miniature.md tells of them."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The files of a training run of a few steps: every stage of the real recipe."""
    folder = tmp_path_factory.mktemp("quick")
    main(["train", "miniature", "--quick", "--work", str(folder / "work"), "--out", str(folder / "out")])
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    torch.manual_seed(0)
    save_image(torch.rand(3, 40, 53), path)
    return path


def restore(photo, out, *options):
    main(["restore", str(photo), str(out), "--steps", "2", *options])
    return load_image(out)


def test_the_recipe_makes_files_that_restore_an_image(quick, photo, tmp_path):
    report = tmp_path / "report.json"
    restored = restore(photo, tmp_path / "out.png", "--model", str(quick / "out"), "--seed", "3", "--json", str(report))
    assert restored.shape == (3, 40, 53)
    written = json.loads(report.read_text(encoding="utf-8"))
    assert (written["nfe"], written["seed"], written["width"], written["height"]) == (2, 3, 53, 40)
    assert written["seconds"] > 0


def test_the_recipe_changes_every_part_of_the_adapter_that_can_learn(quick):
    from comfyui_fluxir.fluxir_core.adapter.model import FluxIRAdapter
    from comfyui_fluxir.training.diffusers_host.single_file import load_transformer

    loaded = load_adapter(quick / "out" / "fluxir_adapters" / "mini-flux-fluxir.safetensors")
    initial = FluxIRAdapter(loaded.config)
    initial.init_from_base(load_transformer(quick / "out" / "diffusion_models" / "mini-flux.safetensors").state_dict())
    unchanged = [
        name
        for name, parameter in initial.named_parameters()
        if parameter.requires_grad and torch.equal(parameter.bfloat16(), loaded.state_dict[name])
    ]
    # Thirty steps move a norm's weight by less than bfloat16 can tell from 1.
    assert [name for name in unchanged if not name.endswith("_norm.weight")] == []


def test_the_files_say_how_they_were_made(quick):
    loaded = load_adapter(quick / "out" / "fluxir_adapters" / "mini-flux-fluxir.safetensors")
    assert loaded.metadata["license"] == "Apache-2.0"
    assert "dead-leaves" in loaded.metadata["data"]
    assert json.loads(loaded.metadata["training_config"])["recipe"]["epsilon"] == 0.05
    assert len(loaded.metadata["training_config_hash"]) == 16


def test_a_work_folder_of_another_run_is_refused(quick, tmp_path):
    with pytest.raises(SystemExit, match="holds another run's work; choose another --work folder"):
        main(["train", "miniature", "--work", str(quick / "work"), "--out", str(tmp_path)])


def test_the_autoencoder_starts_as_the_images_colors():
    """Of random weights some lose an axis of color for good."""
    torch.manual_seed(0)
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]])
    images = colors[..., None, None].expand(-1, 3, 128, 128).contiguous()
    with torch.no_grad():
        net = NarrowTAESD()
        decoded = net.decode(net.encode(images))
    assert (decoded - images)[..., 48:80, 48:80].abs().max() < 0.2


def test_the_images_are_encoded_by_the_given_models_autoencoder(quick):
    own, bundled = (MiniatureBatches.for_model(folder, 128, 4, False, pairs=4).whole(3) for folder in (quick / "out", MINIATURE))
    pair = PairStream(ImageStream(size=128), open_autoencoder(quick / "out"))
    found = {tuple(tokens.flatten()[:8].tolist()) for tokens in own.clean}
    made = {tuple(pack_latents(pair(i).clean[None].float()).flatten()[:8].tolist()) for i in range(12, 16)}
    assert found <= made
    assert (own.clean - bundled.clean).abs().mean() > 0.1


def test_training_images_for_a_vae_of_another_kind_is_refused(tmp_path):
    (tmp_path / "vae").mkdir()
    save_file({"encoder.conv_in.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "vae" / "ae.safetensors")
    with pytest.raises(ValueError, match="ae.safetensors is not an autoencoder of `fluxir train miniature`"):
        open_autoencoder(tmp_path)


@pytest.mark.parametrize(("scale", "size"), [("2", (80, 106)), ("0.5", (20, 26))])
def test_the_output_is_scale_times_the_inputs_size(quick, photo, tmp_path, scale, size):
    restored = restore(photo, tmp_path / "out.png", "--model", str(quick / "out"), "--scale", scale)
    assert restored.shape[1:] == size


def test_the_seed_decides_the_image(photo, tmp_path):
    one, same, other = (restore(photo, tmp_path / "out.png", "--seed", seed) for seed in ("1", "1", "2"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "--steps is 0; use at least 1"),
        (["--scale", "100"], "--scale is 100; use a value from 0.25 to 8"),
        (["--model", "/nowhere"], "there is no model folder /nowhere; give the path of one"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(photo, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        main(["restore", str(photo), str(tmp_path / "out.png"), *options])


def test_a_file_that_is_no_image_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    for name, message in (("text.png", "cannot be read as an image"), ("none.png", "There is no image at")):
        with pytest.raises(SystemExit, match=message):
            main(["restore", str(tmp_path / name), str(tmp_path / "out.png")])


def test_a_diffusers_folder_restores_as_well(quick, photo, tmp_path):
    """A FLUX model as diffusers saves it, with a small AutoencoderKL, and the adapter beside it."""
    import shutil

    from comfyui_fluxir.training.diffusers_host.single_file import load_transformer
    from diffusers import AutoencoderKL

    load_transformer(quick / "out" / "diffusion_models" / "mini-flux.safetensors").save_pretrained(tmp_path / "transformer")
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[4, 4, 4, 4],
        norm_num_groups=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    ).save_pretrained(tmp_path / "vae")
    shutil.copytree(quick / "out" / "fluxir_adapters", tmp_path / "fluxir_adapters")
    assert restore(photo, tmp_path / "out.png", "--model", str(tmp_path)).shape == (3, 40, 53)


def test_the_bundled_files_stay_within_their_size():
    files = [path for path in Path(MINIATURE).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".md", ".json"}
    assert sum(path.stat().st_size for path in files) <= LIMIT_MB * 1e6
    assert max(path.stat().st_size for path in files) <= FILE_MB * 1e6


def training_config(path, name="training_config"):
    """How the miniature's file `path` says it was trained, or what it started from."""
    with safe_open(MINIATURE / f"{path}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()[name])


@pytest.mark.xfail(strict=True, reason="the weights are the former recipe's; those of this one are still being trained")
def test_the_bundled_files_were_made_by_the_recipes_as_they_are():
    stage = {"amounts": asdict(MiniatureSize()), "recipe": asdict(RECIPE), "optimizer": asdict(OPTIMIZER)}
    for path in ("diffusion_models/mini-flux", "vae/mini-flux-vae"):
        assert training_config(path) == stage
    tasks, reinforce, distill = (
        json.loads(kind.load(CONFIGS / f"{name}-miniature.yaml").metadata()["training_config"])
        for name, kind in (("tasks", FluxIRConfig), ("reinforce", ReinforceConfig), ("distill", DistillConfig))
    )
    for path, stages in (
        ("fluxir_adapters/mini-flux-fluxir", [stage, tasks, reinforce]),
        ("loras/mini-flux-few-steps", [stage, tasks, reinforce, distill]),
    ):
        assert [*training_config(path, "trained_before"), training_config(path)] == stages
    ummf = UMMFConfig.load(CONFIGS / "ummf-miniature.yaml")
    assert training_config("loras/mini-flux-ummf") == json.loads(ummf.metadata()["training_config"])


def test_the_bundled_adapter_passes_its_gates_but_for_those_the_results_tell_of():
    """One seed, noise and all degradations at once; `fluxir results miniature` measures the rest."""
    from comfyui_fluxir.training.diffusers_host.restorer import Restorer
    from comfyui_fluxir.training.miniature.evaluate import evaluate, gates

    rows = evaluate(Restorer("miniature"), seeds=(0,), degradations=("noise", "strong"))
    missed = {gate for gate, (_, passed) in gates(rows).items() if not passed}
    assert missed <= KNOWN_MISSES
