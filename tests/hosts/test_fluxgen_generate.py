"""`fluxir fluxgen generate` on real diffusers: the images of its FLUX pipeline, and no kill loses or doubles one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.flux.tokens import pack_latents, unpack_latents
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.fluxgen.base import Base, load_embedder
from comfyui_fluxir.training.miniature import FOLDER as MINIATURE

from .tiny import write_tiny

WIDTH, HEIGHT, COUNT, PER_SHARD = 64, 48, 7, 3
SETTINGS = ["--count", COUNT, "--per-shard", PER_SHARD, "--size", f"{WIDTH}x{HEIGHT}", "--steps", 2, "--batch", 2, "--seed", 5]


def command(out, *more):
    return ["fluxgen", "generate", *map(str, (out, *SETTINGS, *more))]


def shards_in(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar*"))}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The name of the miniature, or of a folder with tiny weights while it is not there."""
    if list(MINIATURE.glob("*/*.safetensors")):
        return "miniature"
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder)
    return str(folder)


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    """{name: bytes} of the shards of a run that nothing disturbed, and their folder."""
    out = tmp_path_factory.mktemp("whole")
    main(command(out, "--model", models))
    return shards_in(out), out


def test_every_image_is_there_once_with_its_seed_and_settings(whole, models):
    source = ImageSource(whole[1])
    assert source.keys == [f"{number:08d}" for number in range(COUNT)] and len(whole[0]) == 3
    assert [source.metadata_of(index)["seed"] for index in range(COUNT)] == [5 + index for index in range(COUNT)]
    expected = {"prompt": "", "model": Path(models).name, "steps": 2, "guidance": 4.0, "width": WIDTH, "height": HEIGHT}
    assert expected.items() <= source.metadata_of(0).items()
    assert source[0].hq.shape == (3, HEIGHT, WIDTH) and source[0].hq.std() > 0


def test_it_draws_what_diffusers_flux_pipeline_draws(whole, models):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    base, (text, pooled) = Base(models), load_embedder(models, [""], "cpu", torch.float32)([""])
    flux = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}  # FLUX.1-dev's scheduler
    pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(**flux), None, None, None, None, None, base.transformer)
    pipeline.set_progress_bar_config(disable=True)
    grid = HEIGHT // 8, WIDTH // 8
    noise = torch.randn((1, 16, *grid), generator=torch.Generator().manual_seed(5))
    tokens = pipeline(
        prompt_embeds=text,
        pooled_prompt_embeds=pooled,
        latents=pack_latents(noise),
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=2,
        guidance_scale=4.0,
        output_type="latent",
    ).images
    with torch.no_grad():
        expected = base.vae.decode(unpack_latents(tokens, *grid)).clamp(0, 1)
    torch.testing.assert_close(base.draw(text, pooled, [5], HEIGHT, WIDTH, 2, 4.0), expected, atol=1e-4, rtol=0)
    assert (ImageSource(whole[1])[0].hq - expected[0]).abs().max() <= 0.5 / 255 + 1e-4


def test_a_run_that_is_killed_ends_with_the_same_bytes(whole, models, tmp_path):
    """Killed with SIGKILL while a shard is being written; then cut shorter, as other moments would leave it."""
    code = "import sys; from comfyui_fluxir.training.cli import main; main(sys.argv[1:])"
    running = subprocess.Popen([sys.executable, "-c", code, *command(tmp_path, "--model", models)])
    partial, deadline = tmp_path / "fluxgen-000001.tar.partial", time.monotonic() + 240
    while not (partial.exists() and partial.stat().st_size) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    running.kill()
    assert running.wait() == -9
    left = shards_in(tmp_path)
    assert left["fluxgen-000000.tar"] == whole[0]["fluxgen-000000.tar"] and len(left) < 4
    for share in (1, 0.7, 0.4):  # one real kill, two more that leave less
        if partial.exists():
            os.truncate(partial, int(share * partial.stat().st_size))
        main(command(tmp_path, "--model", models))
        assert shards_in(tmp_path) == whole[0]
        (tmp_path / "fluxgen-000001.tar").rename(partial)


def test_ranks_share_the_shards_and_another_number_of_them_goes_on(whole, models, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    main(command(tmp_path, "--model", models))
    assert set(shards_in(tmp_path)) == {"fluxgen-000002.tar"}
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        main(command(tmp_path, "--model", models))
    assert shards_in(tmp_path) == whole[0]


def test_a_finished_run_draws_nothing_and_a_larger_one_only_what_is_new(whole, models, tmp_path, monkeypatch):
    for name, data in whole[0].items():
        (tmp_path / name).write_bytes(data)
    drawn, draw = [], Base.draw
    monkeypatch.setattr(Base, "draw", lambda *given: drawn.extend(given[3]) or draw(*given))
    main(command(tmp_path, "--model", models))
    assert drawn == [] and shards_in(tmp_path) == whole[0]
    main(command(tmp_path, "--model", models, "--count", 9))
    assert ImageSource(tmp_path).keys == [f"{number:08d}" for number in range(9)] and max(drawn) == 13 and min(drawn) >= 11


def test_prompts_are_taken_in_turn(tmp_path):
    if not list(MINIATURE.glob("*/*.safetensors")):
        pytest.skip("the miniature's words need its weights")
    (tmp_path / "prompts.txt").write_text("red scene\n\nphoto\n", encoding="utf-8")
    out = tmp_path / "out"
    main(command(out, "--prompts", tmp_path / "prompts.txt", "--count", 3))
    source = ImageSource(out)
    assert [source.metadata_of(index)["prompt"] for index in range(3)] == ["red scene", "photo", "red scene"]
    assert (source[0].hq - source[2].hq).abs().max() > 0


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--size", "100x64"], "--size is 100x64; use WIDTHxHEIGHT in multiples of 16"),
        (["--steps", "0"], "--steps is 0; use at least 1"),
        (["--prompts", "none.txt"], "--prompts: none.txt cannot be read"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(tmp_path, more, sentence):
    with pytest.raises(SystemExit, match=f"^fluxir fluxgen: .*{sentence}.*[^\n]$"):
        main(command(tmp_path, *more))


def test_other_settings_do_not_mix_with_a_run_that_is_there(whole, models):
    with pytest.raises(SystemExit, match="was begun with steps 2, not 3; give another output folder"):
        main(command(whole[1], "--model", models, "--steps", 3))
    assert json.loads((whole[1] / "fluxgen.json").read_text(encoding="utf-8"))["steps"] == 2
