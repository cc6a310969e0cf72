"""ImageReward (Xu et al., 2023): people's preference for an image given a text, on transformers' BLIP classes."""

import re

import torch

from .pretrained import VerifierFileError, build, build_head, find, load_state, score_crops

SOURCE = "THUDM/ImageReward on Hugging Face"
VOCABULARY_SOURCE = "bert-base-uncased on Hugging Face"
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
LONGEST = 35
HEAD_WIDTH = 64
"""Channels of an attention head in both towers of the public model; the one size that no tensor's shape tells."""
VISION_KEYS = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"^norm\.", "post_layernorm."),
)
"""Keys of the public vision tower and what transformers calls them; the text tower's names are the same in both."""


def convert(state):
    """The public `state` by part, in transformers' names: {"vision": {...}, "text": {...}, "head": {...}}.

    Keys of no part (the original loader ignores such) are left out; unknown keys inside a part keep their names.
    """
    parts = {"vision": "blip.visual_encoder.", "text": "blip.text_encoder.", "head": "mlp."}
    found = {
        part: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for part, prefix in parts.items()
    }
    renamed = {}
    for name, value in found["vision"].items():
        for public, ours in VISION_KEYS:
            name, times = re.subn(public, ours, name)
            if times:
                break
        renamed[name] = value
    return found | {"vision": renamed}


def _depth(state, pattern):
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def vision_config(state):
    """BlipVisionConfig of the vision tower whose tensors, in transformers' names, are `state`."""
    from transformers import BlipVisionConfig

    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    positions = state["embeddings.position_embedding"].shape[1] - 1
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_depth(state, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patch * round(positions**0.5),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )


def text_config(state):
    """BlipTextConfig of the text tower whose tensors are `state`."""
    from transformers import BlipTextConfig

    words, width = state["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_depth(state, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0],
    )


def load_tokenizer(file):
    """The tokenizer of BERT's `file` vocab.txt, one token a line, with BLIP's [DEC] and [ENC] behind it."""
    from transformers import BertTokenizer

    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    vocabulary = {token: index for index, token in enumerate(lines)}
    if not {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} <= set(vocabulary):
        raise VerifierFileError(f"verify: {file} is not BERT's vocabulary; get it from {VOCABULARY_SOURCE}.")
    tokenizer = BertTokenizer.from_pretrained(str(file.parent), local_files_only=True, do_lower_case=True)
    tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    return tokenizer


class ImageReward:
    """The reward, in standard deviations of its training set, of an image's crops (see `crops`) for a prompt, averaged.

    It sees 224 pixels a side, so noise and blocks escape it: rank by it only beside scores that see them.
    """

    name = "image_reward"

    def __init__(self, folder, prompt):
        """`folder`: ImageReward.pt (or the same tensors as ImageReward.safetensors) and bert-base-uncased's vocab.txt.
        A prompt of more than 35 tokens is cut. Sizes are those of the tensors; attention heads are 64 channels wide.

        Raises VerifierFileError when a file is missing or has another layout, ValueError for an empty prompt.
        """
        if not prompt.strip():
            raise ValueError("ImageReward: the prompt is empty; describe the image.")
        from transformers import BlipTextModel, BlipVisionModel

        file = find(folder, ("ImageReward.pt", "ImageReward.safetensors"), SOURCE)
        tokenizer = load_tokenizer(find(folder, "vocab.txt", VOCABULARY_SOURCE))
        parts = convert(load_state(file, SOURCE))
        try:
            seen, read = vision_config(parts["vision"]), text_config(parts["text"])
        except Exception:  # whatever shapes that fit nothing lead transformers to
            raise VerifierFileError(f"verify: {file} is not laid out as ImageReward; get it from {SOURCE}.") from None
        if len(tokenizer) != read.vocab_size:
            raise VerifierFileError(
                f"verify: vocab.txt in {folder} gives {len(tokenizer)} tokens, ImageReward knows {read.vocab_size}; "
                f"get it from {VOCABULARY_SOURCE}."
            )
        self.module = torch.nn.ModuleDict(
            {
                "vision": build(lambda: BlipVisionModel(seen), parts["vision"], file, SOURCE),
                "text": build(lambda: BlipTextModel(read, add_pooling_layer=False), parts["text"], file, SOURCE),
                "head": build_head(parts["head"], file, SOURCE),
            }
        )
        self.side = seen.image_size
        # One prompt for all images: without padding there is nothing to mask, and the scores are the same.
        self.tokens = tokenizer(prompt, truncation=True, max_length=LONGEST, return_tensors="pt")["input_ids"]

    @torch.no_grad()
    def __call__(self, images, reference=None):
        def score(views):
            states = self.module["vision"](pixel_values=views).last_hidden_state
            tokens = self.tokens.to(views.device).expand(len(views), -1)
            read = self.module["text"](input_ids=tokens, encoder_hidden_states=states, is_decoder=False)
            return (self.module["head"](read.last_hidden_state[:, 0])[:, 0].float() - MEAN) / DEVIATION

        return score_crops(images, self.side, self.module, score)
