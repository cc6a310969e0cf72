"""Small random weights in exactly the layouts of the public verifiers' files and folders."""

import json

import torch
from safetensors.torch import save_file

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
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
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
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in BERT_WORDS), encoding="utf-8")
    return folder


def images(count=3, height=70, width=150, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
