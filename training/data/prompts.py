"""Prompts as FLUX reads them, by the text encoders of a model folder."""

from typing import Any

import torch

from ...fluxir_core.adapter.checkpoint import load_adapter
from ..bundled import find
from ..diffusers_host.model_folder import model_folder, only_file, whole_model


def load_prompt_encoder(folder, tokens, device="cpu", dtype=torch.bfloat16):
    """Loads what turns a prompt into embeddings.

    A diffusers folder's CLIP and T5 read any prompt; the miniature takes words, in float32; any other folder knows the empty
    prompt alone, from its adapter's file.

    Args:
        folder: as for `load_models`.
        tokens: length of the text embedding.
        device: where CLIP and T5 compute.
        dtype: that they compute in.

    Returns:
        A function from a prompt to (text (tokens, context), pooled (vec,)), on the CPU. It raises ValueError on a prompt that the
        folder cannot read.

    Raises:
        ValueError: the folder has none of these, or they are not whole.
    """
    if own := find(folder):
        return own.embed
    folder = model_folder(folder)
    if (folder / "text_encoder_2").is_dir():
        return _flux_encoder(folder, tokens, device, dtype)
    if not (folder / "fluxir_adapters").is_dir():
        raise ValueError(f"base: {folder} has no text_encoder and text_encoder_2; add them from the FLUX model's own folder.")
    weights = load_adapter(only_file(folder / "fluxir_adapters")).state_dict
    text = torch.zeros(tokens, weights["null_text"].shape[1])
    rows = min(tokens, len(weights["null_text"]))
    text[:rows] = weights["null_text"][:rows].float()
    pooled = weights["null_pooled"].float()

    def empty(prompt):
        if prompt:
            raise ValueError(f"data: {folder} has no text encoders for the prompt {prompt[:40]!r}; turn prompts off or add them.")
        return text, pooled

    return empty


def _flux_encoder(folder, tokens, device, dtype):
    from diffusers import FluxPipeline
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    options = {"local_files_only": True, "torch_dtype": dtype}
    with whole_model(folder):
        nothing: Any = None
        pipeline: Any = FluxPipeline(
            scheduler=nothing,
            vae=nothing,
            transformer=nothing,
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            tokenizer_2=T5TokenizerFast.from_pretrained(folder / "tokenizer_2", local_files_only=True),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", **options).to(device),
            text_encoder_2=T5EncoderModel.from_pretrained(folder / "text_encoder_2", **options).to(device),
        )

    @torch.no_grad()
    def encode(prompt):
        text, pooled, _ = pipeline.encode_prompt(prompt, prompt, device=device, max_sequence_length=tokens)
        return text[0].cpu(), pooled[0].cpu()

    return encode
