"""Verifiers with weights: small random ones, in exactly the layouts of the public files and folders."""

import json
import sys
import time
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from comfyui_fluxir.fluxir_core.verify import pretrained
from comfyui_fluxir.fluxir_core.verify.aesthetic import AestheticPredictor
from comfyui_fluxir.fluxir_core.verify.clip_score import CLIPScore
from comfyui_fluxir.fluxir_core.verify.image_reward import ImageReward, convert
from comfyui_fluxir.fluxir_core.verify.pretrained import VerifierFileError, crops
from comfyui_fluxir.fluxir_core.verify.pyiqa_metric import PyIQAMetric

SIDE, PATCH = 32, 16
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "red", "blue", "house", "sky", "##s"]


def random_state(shapes, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def layers(prefix, **shapes):
    """Shapes of linear or convolution layers: {prefix.name.weight: shape, prefix.name.bias: (first,)}."""
    named = {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}
    return named | {f"{prefix}{name}.bias": shape[:1] for name, shape in shapes.items()}


def head_shapes(width, prefix="layers."):
    widths = (width, 32, 24, 16, 8, 1)
    pairs = zip((0, 2, 4, 6, 7), widths[1:], widths)
    return layers(prefix, **{str(index): (out, into) for index, out, into in pairs})


def clip_shapes(width=32, words=514, out=24, depth=2):
    shapes = {"logit_scale": (), "text_projection.weight": (out, width), "visual_projection.weight": (out, width)}
    for tower in ("text_model", "vision_model"):
        for index in range(depth):
            block = f"{tower}.encoder.layers.{index}."
            square = {f"self_attn.{kind}": (width, width) for kind in ("q_proj", "k_proj", "v_proj", "out_proj")}
            wide = {"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}
            shapes |= layers(block, **square, **wide, layer_norm1=(width,), layer_norm2=(width,))
    shapes |= {"text_model.embeddings.token_embedding.weight": (words, width)}
    shapes |= {"text_model.embeddings.position_embedding.weight": (77, width)}
    shapes |= {"vision_model.embeddings.class_embedding": (width,)}
    shapes |= {"vision_model.embeddings.patch_embedding.weight": (width, 3, PATCH, PATCH)}
    shapes |= {"vision_model.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, width)}
    shapes |= layers("text_model.", final_layer_norm=(width,))
    return shapes | layers("vision_model.", pre_layrnorm=(width,), post_layernorm=(width,))


def write_clip_folder(folder):
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower["projection_dim"] = 24
    text = tower | {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "max_position_embeddings": 77}
    vision = tower | {"image_size": SIDE, "patch_size": PATCH}
    config = {"model_type": "clip", "projection_dim": 24, "text_config": text, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config))
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    state = random_state(clip_shapes())
    for which, length in (("text", 77), ("vision", 5)):  # the public file has these two
        state[f"{which}_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(state, folder / "model.safetensors")
    return folder


def image_reward_shapes(seen=128, read=64, depth=2):
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    shapes = {f"{vision}cls_token": (1, 1, seen), f"{vision}pos_embed": (1, (SIDE // PATCH) ** 2 + 1, seen)}
    shapes |= layers(f"{vision}patch_embed.", proj=(seen, 3, PATCH, PATCH)) | layers(vision, norm=(seen,))
    for index in range(depth):
        wide = {"mlp.fc1": (2 * seen, seen), "mlp.fc2": (seen, 2 * seen)}
        attention = {"attn.qkv": (3 * seen, seen), "attn.proj": (seen, seen)}
        shapes |= layers(f"{vision}blocks.{index}.", norm1=(seen,), norm2=(seen,), **attention, **wide)
        block = f"{text}encoder.layer.{index}."
        for kind, source in (("attention", read), ("crossattention", seen)):
            parts = {"self.query": (read, read), "self.key": (read, source), "self.value": (read, source)}
            parts |= {"output.dense": (read, read), "output.LayerNorm": (read,)}
            shapes |= layers(f"{block}{kind}.", **parts)
        parts = {"intermediate.dense": (96, read), "output.dense": (read, 96), "output.LayerNorm": (read,)}
        shapes |= layers(block, **parts)
    shapes |= {f"{text}embeddings.word_embeddings.weight": (len(BERT_WORDS) + 2, read)}
    shapes |= {f"{text}embeddings.position_embeddings.weight": (48, read)}
    return shapes | layers(f"{text}embeddings.", LayerNorm=(read,)) | head_shapes(read, "mlp.layers.")


def write_image_reward_folder(folder):
    state = random_state(image_reward_shapes(), scale=0.2)
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(48)[None]
    torch.save(state, folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in BERT_WORDS))
    return folder


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


def pictures(count=3, height=70, width=150, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_finite_distinct_repeatable_and_the_same_alone(verifiers, name):
    scores = verifiers[name](pictures())
    assert scores.shape == (3,) and scores.dtype == torch.float32 and scores.isfinite().all()
    assert len(set(scores.tolist())) == 3
    assert torch.equal(scores, verifiers[name](pictures(), pictures()))
    alone = torch.cat([verifiers[name](picture) for picture in pictures().split(1)])
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_nan_scores_last_and_disturbs_nothing(verifiers, name):
    broken = pictures()
    broken[1, 0, 3, 3] = float("nan")
    scores = verifiers[name](broken)
    assert scores[1] == -torch.inf
    torch.testing.assert_close(scores[::2], verifiers[name](pictures())[::2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 70, 101), (4, 64, 64), (3, 1, 1), (3, 9, 400)])
def test_grey_tiny_and_odd_pictures_have_scores(verifiers, name, shape):
    assert verifiers[name](torch.rand(2, *shape).half()).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_module_can_be_moved_and_holds_no_gradients(verifiers, name):
    module = verifiers[name].module
    assert isinstance(module, nn.Module) and not any(p.requires_grad for p in module.parameters())
    before = verifiers[name](pictures())
    module.double()
    after = verifiers[name](pictures())
    module.float()
    assert after.dtype == torch.float32
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_a_long_picture_count(verifiers, name):
    whole = pictures(1, 32, 96)
    for changed in (slice(0, 16), slice(80, 96)):
        other = whole.clone()
        other[..., changed] = 0
        assert verifiers[name](other) != verifiers[name](whole)


def test_crops_cover_the_picture_and_the_middle_one_is_clips():
    picture = pictures(1, 32, 75)
    views = crops(picture, 32)[0]
    assert views.shape == (3, 3, 32, 32)
    assert torch.equal(views[0], picture[0, ..., :32]) and torch.equal(views[2], picture[0, ..., -32:])
    assert torch.equal(views[1], picture[0, ..., round(43 / 2) :][..., :32])
    assert crops(picture.transpose(2, 3), 32).shape == (1, 3, 3, 32, 32)
    assert crops(pictures(1, 64, 64), 32).shape[1] == 1 and crops(pictures(1, 64, 4000), 32).shape[1] == 9


def prepared(views):
    mean, deviation = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    return (views - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


def test_clip_score_is_transformers_own_cosine(files):
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(files.clip), CLIPTokenizer.from_pretrained(files.clip)
    views = F.interpolate(pictures(4, 64, 64), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        found = model(**tokenizer("a blue sky", return_tensors="pt"), pixel_values=prepared(views))
    expected = found.logits_per_image[:, 0] / model.logit_scale.exp()
    torch.testing.assert_close(CLIPScore(files.clip, "a blue sky")(pictures(4, 64, 64)), expected)


def test_the_prompt_matters_and_long_ones_are_cut(files):
    for make, folder in ((CLIPScore, files.clip), (ImageReward, files.reward)):
        red, blue = (make(folder, prompt)(pictures()) for prompt in ("a red house", "a blue sky"))
        assert not torch.allclose(red, blue)
        long = make(folder, "a photo of a red house " * 30)
        assert long.tokens.shape[1] == (77 if make is CLIPScore else 35) and long(pictures()).isfinite().all()
        assert long.tokens[0, -1] == (513 if make is CLIPScore else BERT_WORDS.index("[SEP]"))
        with pytest.raises(ValueError, match="the prompt is empty; describe the picture"):
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
    square = pictures(3, 64, 64)
    views = F.interpolate(square, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        features = CLIPModel.from_pretrained(files.clip).get_image_features(prepared(views)).pooler_output
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

    views = pictures(2, SIDE, SIDE)
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
    verifier, square = verifiers["image_reward"], pictures(2, SIDE * 2, SIDE * 2)
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
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS[:-1]))
    with pytest.raises(VerifierFileError, match=r"gives 14 tokens, ImageReward knows 15"):
        reward(lambda state: None)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
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
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(VerifierFileError, match="describes siglip, not a full CLIP model"):
        CLIPScore(tmp_path, "a house")


class FakeMetric(nn.Module):
    """Brightness, or the distance to a reference; like pyiqa's, it refuses what is out of range."""

    def __init__(self, mode, lower_better):
        super().__init__()
        self.metric_mode, self.lower_better = mode, lower_better

    def forward(self, target, ref=None):
        assert target.isfinite().all() and target.min() >= 0 and target.max() <= 1 and target.shape[1] == 3
        if self.metric_mode == "FR":
            assert ref.shape == target.shape
            return (target - ref).abs().mean()[None]
        return target.mean()[None, None] + 1e-3 * torch.rand(1)


@pytest.fixture
def fake_pyiqa(monkeypatch, tmp_path):
    def create_metric(name, device):
        if name == "needs_hub":
            torch.hub.load_state_dict_from_url("https://example.org/needs_hub.pth", model_dir=str(tmp_path))
        if name == "needs_clip":
            import urllib.request

            urllib.request.urlopen("https://example.org/ViT-B-32.pt")
        if name == "needs_hugging_face":
            from huggingface_hub import hf_hub_download

            hf_hub_download("nobody/nothing", "weights.pth", cache_dir=tmp_path)
        if name == "needs_package":
            raise ModuleNotFoundError("No module named 'pkg_resources'")
        return FakeMetric("FR" if name == "apart" else "NR", lower_better=name in ("apart", "dark"))

    needs = ["needs_hub", "needs_clip", "needs_hugging_face", "needs_package"]
    fake = types.SimpleNamespace(create_metric=create_metric, list_models=lambda: ["apart", "bright", "dark", "fid", *needs])
    monkeypatch.setitem(sys.modules, "pyiqa", fake)


def test_pyiqas_sign_is_turned_and_nan_scores_last(fake_pyiqa):
    given = torch.stack([torch.full((3, 8, 80), level) for level in (0.2, 0.9, 0.5)])
    given[2, 0, 0, 0] = float("nan")
    bright, dark = PyIQAMetric("bright"), PyIQAMetric("dark")
    assert bright(given)[1] > bright(given)[0] and dark(given)[0] > dark(given)[1]
    assert bright(given)[2] == dark(given)[2] == -torch.inf
    assert bright.name == "pyiqa_bright" and isinstance(bright.module, nn.Module)


def test_pyiqas_draws_are_repeated_and_leave_the_generator_alone(fake_pyiqa):
    bright = PyIQAMetric("bright")
    state = torch.get_rng_state()
    assert torch.equal(bright(pictures()), bright(pictures()))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [(35, 75), (70, 150), (140, 300), (35, 300)])
def test_pyiqas_full_reference_metrics_see_the_reference_at_the_pictures_size(fake_pyiqa, size):
    apart = PyIQAMetric("apart")
    level = torch.tensor([0.25, 0.5])[:, None, None, None].expand(2, 3, 70, 150)
    scores = apart(level, torch.full((3, *size), 0.5))
    torch.testing.assert_close(scores, torch.tensor([-0.25, 0.0]), atol=1e-4, rtol=0)
    assert (apart(level, torch.full((3, *size), torch.nan)) == -torch.inf).all()
    with pytest.raises(ValueError, match="needs a reference; connect the degraded input"):
        apart(level)


@pytest.mark.parametrize(
    "name, kind, text",
    [
        ("needs_hub", VerifierFileError, r"not on disk: needs_hub\.pth belongs into .*, from https://example\.org"),
        ("needs_clip", VerifierFileError, r"ViT-B-32\.pt belongs into .*clip"),
        ("needs_hugging_face", VerifierFileError, r"not on disk; they belong into .*pyiqa or, from Hugging Face, into .*https://.*nobody/nothing"),
        ("needs_package", ImportError, r"needs a package that is missing \(No module named 'pkg_resources'\)"),
        ("brigt", ValueError, r"'brigt' is no metric of single pictures in pyiqa; near it: bright"),
        ("fid", ValueError, "no metric of single pictures"),
    ],
)  # fmt: skip
def test_what_pyiqa_lacks_is_said_at_once(fake_pyiqa, name, kind, text):
    import huggingface_hub.constants as hub

    functions, started = (torch.hub.download_url_to_file, torch.hub.urlopen, hub.HF_HUB_OFFLINE), time.monotonic()
    with pytest.raises(kind, match=text):
        PyIQAMetric(name)
    assert time.monotonic() - started < 5
    assert functions == (torch.hub.download_url_to_file, torch.hub.urlopen, hub.HF_HUB_OFFLINE)


def test_without_pyiqa_the_way_to_it_and_its_licence_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ImportError, match=r"pip install pyiqa \(its licence is PolyForm-Noncommercial\)"):
        PyIQAMetric("musiq")


@pytest.mark.parametrize("name", ["psnr", "ssim", "piqe"])
def test_pyiqas_own_weightless_metrics(name):
    pytest.importorskip("pyiqa")
    metric, clean = PyIQAMetric(name), pictures(1, 96, 128)
    clean = F.interpolate(clean, scale_factor=2, mode="bicubic").clamp(0, 1)
    shown = torch.cat([clean, (clean + 0.3 * torch.randn(clean.shape)).clamp(0, 1), clean * float("nan")])
    good, bad, broken = metric(shown, clean[0])
    assert good > bad and broken == -torch.inf and bad.isfinite()


def test_importing_the_verifiers_imports_neither_transformers_nor_pyiqa():
    import ast
    from pathlib import Path

    for module in ("pretrained", "clip_score", "aesthetic", "image_reward", "pyiqa_metric"):
        tree = ast.parse((Path(pretrained.__file__).parent / f"{module}.py").read_text())
        at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {a.name for node in at_top for a in node.names} | {getattr(node, "module", "") for node in at_top}
        assert not names & {"transformers", "pyiqa", "huggingface_hub", "huggingface_hub.constants"}
