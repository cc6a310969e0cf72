"""The miniature's prompt encoder: a fixed random vector for every word, so that it needs no file.

The empty prompt is all zeros, as ComfyUI's ConditioningZeroOut makes it.
"""

import zlib

import torch

TOKENS, CONTEXT_DIM, POOLED_DIM = 8, 64, 32


def encode_words(words):
    """Embeds up to 8 `words`. Returns (text (8, 64), pooled (32,)): a row a word, zero rows behind; pooled is their sum."""
    text, pooled = torch.zeros(TOKENS, CONTEXT_DIM), torch.zeros(POOLED_DIM)
    for row, word in enumerate(words[:TOKENS]):
        draw = torch.Generator().manual_seed(zlib.crc32(word.encode()))
        text[row] = torch.randn(CONTEXT_DIM, generator=draw)
        pooled += torch.randn(POOLED_DIM, generator=draw)
    return text, pooled
