"""A FLUX model folder in diffusers' own layout, with text encoders: captions train a LoRA, and prompts draw images."""

import pytest
import torch
import yaml
from comfyui_fluxir.fluxir_core.adapter.checkpoint import load_adapter
from comfyui_fluxir.fluxir_core.data.source import ImageSource
from comfyui_fluxir.fluxir_core.image.files import save_image
from comfyui_fluxir.fluxir_core.lora.files import load_lora
from comfyui_fluxir.training.cli import main
from comfyui_fluxir.training.data.prompts import load_prompt_encoder

from ..unit.public_layouts import write_clip_folder

TRANSFORMER = dict(
    num_layers=1, num_single_layers=1, num_attention_heads=1, joint_attention_dim=64, pooled_projection_dim=32, guidance_embeds=True
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of every part of FLUX.1-dev's folder, and captioned photos beside them."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    folder = tmp_path_factory.mktemp("flux")
    torch.manual_seed(0)
    FluxTransformer2DModel(**TRANSFORMER).save_pretrained(folder / "transformer")
    AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        layers_per_block=1,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "vae")
    (folder / "clip").mkdir()
    write_clip_folder(folder / "clip")
    CLIPTokenizer.from_pretrained(folder / "clip", model_max_length=77).save_pretrained(folder / "tokenizer")
    clip = CLIPTextConfig(vocab_size=514, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in ("red", "house", "blue", "sky"))]
    words = Tokenizer(models.Unigram(pieces, unk_id=2))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    T5TokenizerFast(tokenizer_object=words, extra_ids=0, model_max_length=512).save_pretrained(folder / "tokenizer_2")
    t5 = T5Config(vocab_size=8, d_model=64, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")

    (folder / "photos").mkdir()
    for i, caption in enumerate(("red house", "blue sky", "red sky")):
        save_image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)), folder / "photos" / f"{i}.png")
        (folder / "photos" / f"{i}.txt").write_text(caption, encoding="utf-8")
    return folder


def config(folder, work, recipe, **data):
    values = {
        "base": {"folder": str(folder)},
        "data": {"images": str(folder / "photos"), "buckets": ["32x32"], "text_tokens": 16, "held_out": 0, **data},
        "adapter": {"rank": 2},
        "recipe": {"pixel_crop": 4} if recipe == "fluxir" else {},
        "optimizer": {"learning_rate": 1e-2},
        "run": {"steps": 2, "batch": 2, "micro_batch": 2},
        "log": [],
    }
    path = work / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def test_a_prompt_is_t5s_last_states_and_clips_pooled_one(folder):
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    text, pooled = load_prompt_encoder(folder, 16, dtype=torch.float32)("red house")
    ids = [
        AutoTokenizer.from_pretrained(folder / name)("red house", padding="max_length", max_length=length, return_tensors="pt")
        for name, length in (("tokenizer_2", 16), ("tokenizer", 77))
    ]
    with torch.no_grad():
        states = T5EncoderModel.from_pretrained(folder / "text_encoder_2")(ids[0].input_ids).last_hidden_state
        pooler = CLIPTextModel.from_pretrained(folder / "text_encoder")(ids[1].input_ids).pooler_output
    torch.testing.assert_close(text, states[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled, pooler[0], rtol=1e-4, atol=1e-5)


def test_captions_train_a_lora_and_are_encoded_once(folder, tmp_path):
    out = tmp_path / "lora.safetensors"
    arguments = [
        "train",
        "ummf",
        "--config",
        config(folder, tmp_path, "ummf", prompts=True),
        "--work",
        str(tmp_path),
        "--out",
        str(out),
    ]
    main(arguments)
    loaded = load_lora(out)
    assert not loaded.report.missing and not loaded.report.unused and loaded.metadata["base_model"] == folder.name
    made = list((tmp_path / "prompts").rglob("*.safetensors"))
    assert len(made) == 4  # three captions, and the empty prompt
    main(
        [
            "train",
            "ummf",
            "--config",
            config(folder, tmp_path, "ummf", prompts=False),
            "--work",
            str(tmp_path / "empty"),
            "--out",
            str(out),
        ]
    )
    assert len(list((tmp_path / "empty" / "prompts").rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("prompts", [False, True])
def test_an_adapter_carries_the_empty_prompt_of_its_base(folder, tmp_path, prompts):
    out = tmp_path / "adapter.safetensors"
    main(
        [
            "train",
            "fluxir",
            "--config",
            config(folder, tmp_path, "fluxir", prompts=prompts),
            "--work",
            str(tmp_path),
            "--out",
            str(out),
        ]
    )
    text, pooled = load_prompt_encoder(folder, 16, dtype=torch.bfloat16)("")
    weights = load_adapter(out).state_dict
    assert torch.equal(weights["null_text"], text.bfloat16()) and torch.equal(weights["null_pooled"], pooled.bfloat16())
    assert text.abs().sum() > 0


def test_a_resumed_run_does_not_load_the_text_encoders_and_another_vae_is_encoded_anew(folder, tmp_path, monkeypatch):
    from comfyui_fluxir.training.recipes import train as train_recipe

    path = config(folder, tmp_path, "fluxir")
    arguments = ["train", "fluxir", "--config", path, "--work", str(tmp_path), "--out", str(tmp_path / "a.safetensors")]
    main(arguments)
    loaded = []
    load = train_recipe.load_prompt_encoder
    monkeypatch.setattr(train_recipe, "load_prompt_encoder", lambda *given: loaded.append(given) or load(*given))
    main(arguments)
    assert loaded == [] and len(list((tmp_path / "latents").iterdir())) == 1
    weights = next((folder / "vae").glob("*.safetensors"))
    weights.touch()
    main(arguments)
    assert len(loaded) == 1 and len(list((tmp_path / "latents").iterdir())) == 2


def test_prompts_draw_different_images(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("red house\nblue sky\n", encoding="utf-8")
    main(
        [
            "fluxgen",
            "generate",
            str(tmp_path / "out"),
            "--model",
            str(folder),
            "--prompts",
            str(tmp_path / "prompts.txt"),
            "--count",
            "2",
            "--size",
            "32x32",
            "--steps",
            "1",
            "--seed",
            "0",
        ]
    )
    source = ImageSource(tmp_path / "out")
    assert [source[i].metadata["prompt"] for i in range(2)] == ["red house", "blue sky"]
    assert not torch.equal(source[0].hq, source[1].hq)


def test_a_folder_without_text_encoders_says_so(folder, tmp_path):
    for part in ("transformer", "vae"):
        (tmp_path / part).symlink_to(folder / part)
    with pytest.raises(ValueError, match="has no text_encoder and text_encoder_2; add them"):
        load_prompt_encoder(tmp_path, 16)
