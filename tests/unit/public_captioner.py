"""A small random Qwen2.5-VL in exactly the layout of the public folder Qwen/Qwen2.5-VL-7B-Instruct."""

import json

import torch
from safetensors.torch import save_file

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the public order; there they begin at 151643, here after the 256 bytes."""
TOKEN = {name: 256 + index for index, name in enumerate(SPECIAL)}
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "attention_dropout": 0.0,
    "bos_token_id": TOKEN["<|endoftext|>"],
    "eos_token_id": TOKEN["<|im_end|>"],
    "vision_start_token_id": TOKEN["<|vision_start|>"],
    "vision_end_token_id": TOKEN["<|vision_end|>"],
    "vision_token_id": TOKEN["<|vision_pad|>"],
    "image_token_id": TOKEN["<|image_pad|>"],
    "video_token_id": TOKEN["<|video_pad|>"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "max_window_layers": 2,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 64,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "vocab_size": 272,
}
PREPARATION = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}
GENERATION = {
    "bos_token_id": TOKEN["<|endoftext|>"],
    "pad_token_id": TOKEN["<|endoftext|>"],
    "do_sample": True,
    "eos_token_id": [TOKEN["<|im_end|>"], TOKEN["<|endoftext|>"]],
    "repetition_penalty": 1.05,
    "temperature": 0.000001,
}


def write_qwen_folder(folder, shards=1):
    """Writes the folder, its weights in `shards` files, and returns it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    for name, content in {"config": CONFIG, "preprocessor_config": PREPARATION, "generation_config": GENERATION}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")
    write_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large enough that the image decides what is said
                torch.nn.init.normal_(parameter, std=0.2)
    write_weights(folder, {public_name(name): value.clone() for name, value in model.state_dict().items()}, shards)
    return folder


def public_name(name):
    """The name of a tensor in the public files, which kept it when transformers moved the parts of the model."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def write_weights(folder, state, shards):
    if shards == 1:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return
    files = {name: f"model-{1 + i % shards:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(state)}
    for file in set(files.values()):
        save_file({name: state[name] for name in state if files[name] == file}, folder / file, {"format": "pt"})
    size = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def write_tokenizer(folder):
    """A token for every byte, no merges, and the public special tokens."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    described = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": n, **form} for n, i in TOKEN.items()},
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    Qwen2TokenizerFast.from_pretrained(str(folder)).backend_tokenizer.save(str(folder / "tokenizer.json"))
