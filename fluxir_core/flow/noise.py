"""Noise that depends on what it is for, and on nothing else."""

import hashlib

import torch


def keyed_generator(*key):
    """A CPU generator whose stream belongs to `key` (integers and strings) alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def keyed_noise(shape, *key):
    """Standard normal float32 noise of `shape`, on the CPU, the same for the same `key` whatever else was drawn.

    A search keys it by (seed, image, step, lineage, candidate): more candidates keep the first ones' noise, and the order
    of the images in a batch changes nothing.
    """
    return torch.randn(shape, generator=keyed_generator(*key))
