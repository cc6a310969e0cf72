"""Verifiers with weights: small random ones, in exactly the layouts of the public files and folders."""

import types

import pytest
import torch
from comfyui_fluxir.fluxir_core.verify import pretrained
from comfyui_fluxir.fluxir_core.verify.aesthetic import AestheticPredictor
from comfyui_fluxir.fluxir_core.verify.clip_score import CLIPScore
from comfyui_fluxir.fluxir_core.verify.image_reward import ImageReward, convert
from comfyui_fluxir.fluxir_core.verify.pretrained import VerifierFileError, crops
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from .public_layouts import (
    BERT_WORDS,
    PATCH,
    SIDE,
    head_shapes,
    images,
    layers,
    random_state,
    write_clip_folder,
    write_image_reward_folder,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in ("clip", "reward", "head")}
    write_clip_folder(folders["clip"])
    write_image_reward_folder(folders["reward"])
    torch.save(random_state(head_shapes(24)), folders["head"] / "head.pth")
    return types.SimpleNamespace(**folders | {"head": folders["head"] / "head.pth"})


@pytest.fixture(scope="module")
def verifiers(files):
    clip, reward = CLIPScore(files.clip, "a red house"), ImageReward(files.reward, "a red house")
    return {verifier.name: verifier for verifier in (clip, reward, AestheticPredictor(files.clip, files.head))}


NAMES = ["clip_score", "image_reward", "aesthetic"]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_distinct_repeatable_and_the_same_alone(verifiers, name):
    scores = verifiers[name](images())
    assert scores.shape == (3,) and scores.dtype == torch.float32 and scores.isfinite().all()
    assert len(set(scores.tolist())) == 3
    assert torch.equal(scores, verifiers[name](images(), images()))
    alone = torch.cat([verifiers[name](image) for image in images().split(1)])
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_nan_scores_last_and_disturbs_nothing(verifiers, name):
    broken = images()
    broken[1, 0, 3, 3] = float("nan")
    scores = verifiers[name](broken)
    assert scores[1] == -torch.inf
    torch.testing.assert_close(scores[::2], verifiers[name](images())[::2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 70, 101), (4, 64, 64), (3, 1, 1), (3, 9, 400)])
def test_gray_tiny_and_odd_images_have_scores(verifiers, name, shape):
    assert verifiers[name](torch.rand(2, *shape).half()).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_module_can_be_moved_and_holds_no_gradients(verifiers, name):
    module = verifiers[name].module
    assert isinstance(module, nn.Module) and not any(p.requires_grad for p in module.parameters())
    before, weights = verifiers[name](images()), {key: value.clone() for key, value in module.state_dict().items()}
    module.bfloat16()
    after = verifiers[name](images())
    module.float().load_state_dict(weights)
    assert after.dtype == torch.float32
    torch.testing.assert_close(before, after, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_a_long_image_count(verifiers, name):
    whole = images(1, 32, 96)
    for changed in (slice(0, 16), slice(80, 96)):
        other = whole.clone()
        other[..., changed] = 0
        assert verifiers[name](other) != verifiers[name](whole)


def test_crops_cover_the_image_and_the_middle_one_is_clips():
    image = images(1, 32, 75)
    views = crops(image, 32)[0]
    assert views.shape == (3, 3, 32, 32)
    assert torch.equal(views[0], image[0, ..., :32]) and torch.equal(views[2], image[0, ..., -32:])
    assert torch.equal(views[1], image[0, ..., round(43 / 2) :][..., :32])
    assert crops(image.transpose(2, 3), 32).shape == (1, 3, 3, 32, 32)
    assert crops(images(1, 64, 64), 32).shape[1] == 1 and crops(images(1, 64, 4000), 32).shape[1] == 9


def prepared(views):
    mean, deviation = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    return (views - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


def test_clip_score_is_transformers_own_cosine(files):
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(files.clip), CLIPTokenizer.from_pretrained(files.clip)
    views = F.interpolate(images(4, 64, 64), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        found = model(**tokenizer("a blue sky", return_tensors="pt"), pixel_values=prepared(views))
    expected = found.logits_per_image[:, 0] / model.logit_scale.exp()
    torch.testing.assert_close(CLIPScore(files.clip, "a blue sky")(images(4, 64, 64)), expected)


def test_the_prompt_matters_and_long_ones_are_cut(files):
    for make, folder in ((CLIPScore, files.clip), (ImageReward, files.reward)):
        red, blue = (make(folder, prompt)(images()) for prompt in ("a red house", "a blue sky"))
        assert not torch.allclose(red, blue)
        long = make(folder, "a photo of a red house " * 30)
        assert long.tokens.shape[1] == (77 if make is CLIPScore else 35) and long(images()).isfinite().all()
        assert long.tokens[0, -1] == (513 if make is CLIPScore else BERT_WORDS.index("[SEP]"))
        with pytest.raises(ValueError, match="the prompt is empty; describe the image"):
            make(folder, "  ")


def test_the_aesthetic_head_is_the_published_stack(files):
    """Linear layers with dropout between and no activation, on image features of length 1."""
    from transformers import CLIPModel

    widths = (24, 32, 24, 16, 8, 1)
    lines = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
    between = [nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.1)]
    published = nn.Sequential(lines[0], between[0], lines[1], between[1], lines[2], between[2], *lines[3:]).eval()
    state = torch.load(files.head, weights_only=True)
    published.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()})
    square = images(3, 64, 64)
    views = F.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        features = CLIPModel.from_pretrained(files.clip).get_image_features(prepared(views))
        features = getattr(features, "pooler_output", features)  # transformers 5, or 4
        expected = published(features / features.norm(dim=1, keepdim=True))[:, 0]
    torch.testing.assert_close(AestheticPredictor(files.clip, files.head)(square), expected, atol=1e-5, rtol=1e-4)


def test_image_rewards_keys_become_transformers_own_and_none_is_left(files, verifiers):
    public = torch.load(files.reward / "ImageReward.pt", weights_only=True)
    public.pop("blip.text_encoder.embeddings.position_ids")
    parts = convert(public | {"another.tensor": torch.zeros(1)})
    for part, module in verifiers["image_reward"].module.items():
        prefix = "layers." if part == "head" else ""
        state = {prefix + name: value for name, value in module.state_dict().items()}
        assert set(state) == set(parts[part])
        assert all(torch.equal(state[name], parts[part][name]) for name in state)
    assert sum(len(part) for part in parts.values()) == len(public)


def test_image_rewards_vision_tower_is_the_public_one(files, verifiers):
    """A pre-norm ViT with one qkv matrix, written out from the public names."""
    state = torch.load(files.reward / "ImageReward.pt", weights_only=True)
    state = {name.removeprefix("blip.visual_encoder."): value for name, value in state.items()}

    def line(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    views = images(2, SIDE, SIDE)
    x = F.conv2d(views, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([state["cls_token"].expand(2, -1, -1), x.flatten(2).transpose(1, 2)], 1) + state["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        q, k, v = line(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(2, (3, 2, 64)).permute(2, 0, 3, 1, 4)
        attended = ((q @ k.transpose(2, 3) / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + line(attended, f"{block}.attn.proj")
        x = x + line(F.gelu(line(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    found = verifiers["image_reward"].module["vision"](pixel_values=views).last_hidden_state
    torch.testing.assert_close(found, norm(x, "norm"), atol=1e-4, rtol=1e-4)


def test_image_reward_is_its_published_formula_with_the_padding_left_out(verifiers):
    verifier, square = verifiers["image_reward"], images(2, SIDE * 2, SIDE * 2)
    views = F.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    words = ["[CLS]", "a", "red", "house", "[SEP]"]
    assert verifier.tokens[0].tolist() == [BERT_WORDS.index(word) for word in words]
    tokens, mask = torch.zeros(2, 35, dtype=torch.long), torch.zeros(2, 35, dtype=torch.long)
    tokens[:, :5], mask[:, :5] = verifier.tokens, 1
    module = verifier.module
    with torch.no_grad():
        states = module["vision"](pixel_values=prepared(views)).last_hidden_state
        read = module["text"](input_ids=tokens, attention_mask=mask, encoder_hidden_states=states, is_decoder=False)
        expected = (module["head"](read.last_hidden_state[:, 0])[:, 0] - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(verifier(square), expected, atol=1e-5, rtol=1e-4)


def test_a_missing_file_is_named_with_its_folder_and_source(tmp_path, files):
    with pytest.raises(VerifierFileError, match=r"config\.json is missing; put it into .*, from openai/clip-vit-large-"):
        CLIPScore(tmp_path, "a house")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((files.clip / name).read_bytes())
    with pytest.raises(VerifierFileError, match=r"tokenizer\.json or vocab\.json is missing"):
        CLIPScore(tmp_path, "a house")
    with pytest.raises(VerifierFileError, match=r"head\.pth is missing; .*improved-aesthetic-predictor on GitHub"):
        AestheticPredictor(files.clip, tmp_path / "head.pth")
    with pytest.raises(VerifierFileError, match=r"ImageReward\.pt or ImageReward\.safetensors .* THUDM/ImageReward"):
        ImageReward(tmp_path, "a house")
    torch.save({}, tmp_path / "ImageReward.pt")
    with pytest.raises(VerifierFileError, match=r"vocab\.txt is missing; .* from bert-base-uncased"):
        ImageReward(tmp_path, "a house")


def test_files_of_another_layout_are_refused(tmp_path, files):
    def reward(change):
        state = torch.load(files.reward / "ImageReward.pt", weights_only=True)
        change(state)
        torch.save(state, tmp_path / "ImageReward.pt")
        return ImageReward(tmp_path, "a house")

    def named(state, name, value):
        state[name] = value

    (tmp_path / "vocab.txt").write_bytes((files.reward / "vocab.txt").read_bytes())
    with pytest.raises(VerifierFileError, match=r"lacks encoder\.layers\.1\.self_attn\.qkv\.bias; get the file from"):
        reward(lambda state: state.pop("blip.visual_encoder.blocks.1.attn.qkv.bias"))
    with pytest.raises(VerifierFileError, match=r"holds the unknown encoder\.more"):
        reward(lambda state: named(state, "blip.text_encoder.encoder.more", torch.zeros(1)))
    with pytest.raises(VerifierFileError, match=r"another shape of embeddings\.LayerNorm\.weight"):
        reward(lambda state: named(state, "blip.text_encoder.embeddings.LayerNorm.weight", torch.zeros(3)))
    with pytest.raises(VerifierFileError, match=r"is not laid out as ImageReward"):
        reward(lambda state: [state.pop(name) for name in list(state) if name.startswith("blip")])
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS[:-1]), encoding="utf-8")
    with pytest.raises(VerifierFileError, match=r"gives 14 tokens, ImageReward knows 15"):
        reward(lambda state: None)
    (tmp_path / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(VerifierFileError, match=r"is not BERT's vocabulary"):
        reward(lambda state: None)
    for wrong in (random_state(layers("layers.", **{"0": (8, 24), "2": (1, 8)})), random_state(head_shapes(24, "net."))):
        torch.save(wrong, tmp_path / "head.pth")
        with pytest.raises(VerifierFileError, match="does not hold five linear layers"):
            AestheticPredictor(files.clip, tmp_path / "head.pth")
    torch.save(random_state(head_shapes(20)), tmp_path / "head.pth")
    with pytest.raises(VerifierFileError, match="rates 20 features but the model in .* gives 24"):
        AestheticPredictor(files.clip, tmp_path / "head.pth")


def test_an_unreadable_file_and_one_with_code_inside_are_refused(tmp_path, files):
    for content in (b"", b"<!DOCTYPE html>"):
        for name in ("head.pth", "head.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(VerifierFileError, match="cannot be read as weights"):
                AestheticPredictor(files.clip, tmp_path / name)
    torch.save({"layers.0.weight": nn.Linear(2, 2)}, tmp_path / "head.pth")
    with pytest.raises(VerifierFileError, match="cannot be read as weights"):
        AestheticPredictor(files.clip, tmp_path / "head.pth")


def test_fluxs_clip_l_without_the_text_projection_is_refused(tmp_path, files):
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((files.clip / name).read_bytes())
    state = load_file(files.clip / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(VerifierFileError, match=r"lacks text_projection\.weight"):
        CLIPScore(tmp_path, "a house")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}', encoding="utf-8")
    with pytest.raises(VerifierFileError, match="not a full CLIP model's .it describes siglip"):
        CLIPScore(tmp_path, "a house")


def test_importing_the_verifiers_imports_neither_transformers_nor_pyiqa():
    import ast
    from pathlib import Path

    for module in ("pretrained", "clip_score", "aesthetic", "image_reward", "pyiqa_metric"):
        tree = ast.parse((Path(pretrained.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {a.name for node in at_top for a in node.names} | {getattr(node, "module", "") for node in at_top}
        assert not names & {"transformers", "pyiqa", "huggingface_hub", "huggingface_hub.constants"}
