"""LucidFlux written down straightforwardly from its paper and its file's names, for the tests: no module of the pack is used.

Everything is a function of `w`, the weights under the public file's names, joined by dots.
"""

import math

import torch
from torch.nn import functional as F

HEAD = 128
AXES = (16, 56, 56)
SIZES = dict(hidden=128, context=32, vec=16, features=12, inner=24)


def layout(hidden=128, context=32, vec=16, features=12, inner=24, depth=2):
    """{name: shape} of the public file at these sizes."""
    shapes = {}

    def linear(name, inputs, outputs):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    for branch in ("condition_lq", "condition_ldr"):
        linear(f"{branch}.img_in", 64, hidden)
        linear(f"{branch}.txt_in", context, hidden)
        linear(f"{branch}.pos_embed_input", 64, hidden)
        for embedder, inputs in (("time_in", 256), ("guidance_in", 256), ("vector_in", vec)):
            linear(f"{branch}.{embedder}.in_layer", inputs, hidden)
            linear(f"{branch}.{embedder}.out_layer", hidden, hidden)
        for layer in range(8):
            name = f"{branch}.input_hint_block.{2 * layer}"
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (16, 16 if layer else 3, 3, 3), (16,)
        for block in range(depth):
            linear(f"{branch}.controlnet_blocks.{block}", hidden, hidden)
            for stream in ("img", "txt"):
                own = f"{branch}.double_blocks.{block}.{stream}"
                linear(f"{own}_mod.lin", hidden, 6 * hidden)
                linear(f"{own}_attn.qkv", hidden, 3 * hidden)
                linear(f"{own}_attn.proj", hidden, hidden)
                linear(f"{own}_mlp.0", hidden, 4 * hidden)
                linear(f"{own}_mlp.2", 4 * hidden, hidden)
                shapes[f"{own}_attn.norm.query_norm.scale"] = shapes[f"{own}_attn.norm.key_norm.scale"] = (HEAD,)
    for modulation in ("modulation_lq", "modulation_ldr"):
        linear(f"{modulation}.linear", hidden, 2 * hidden)
        for embedder in ("timestep_embedder", "control_index_embedder"):
            linear(f"{modulation}.{embedder}.linear_1", 256, hidden)
            linear(f"{modulation}.{embedder}.linear_2", hidden, hidden)
    linear("connector.redux_up", features, inner)
    linear("connector.redux_down", inner, context)
    return shapes


def random_weights(seed=0, **sizes):
    """Random weights in the public layout, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:]))) + name.endswith("scale")
        for name, shape in layout(**sizes).items()
    }


def dense(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def two_layers(w, first, second, x):
    return dense(w, second, F.silu(dense(w, first, x)))


def waves(numbers):
    """Cosines, then sines, at 128 frequencies from 1 to 1 / 10000, of `numbers` (B,): (B, 256)."""
    rows = []
    for number in numbers.tolist():
        angles = [number * math.exp(-math.log(10000) * i / 128) for i in range(128)]
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    return torch.tensor(rows)


def normalized(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def packed(latents):
    """(B, C, H, W) -> (B, H/2 W/2, 4 C), a token's values in the order channel, row, column."""
    batch, channels, height, width = latents.shape
    tokens = [
        latents[:, :, row : row + 2, column : column + 2].reshape(batch, 4 * channels)
        for row in range(0, height, 2)
        for column in range(0, width, 2)
    ]
    return torch.stack(tokens, 1)


def rotated(x, places):
    """`x` (B, heads, N, 128) turned, pair by pair, by the angles of `places` (N, 3)."""
    out, start = x.clone(), 0
    for axis, size in enumerate(AXES):
        for i in range(size // 2):
            angle = places[:, axis].double() / 10000 ** (2 * i / size)
            cos, sin = angle.cos().float(), angle.sin().float()
            even, odd = x[..., start + 2 * i], x[..., start + 2 * i + 1]
            out[..., start + 2 * i], out[..., start + 2 * i + 1] = cos * even - sin * odd, sin * even + cos * odd
        start += size
    return out


def double_block(w, name, image, text, vector, places):
    mods = {s: dense(w, f"{name}.{s}_mod.lin", F.silu(vector))[:, None].chunk(6, -1) for s in ("img", "txt")}
    streams, parts = {"txt": text, "img": image}, []
    for stream, x in streams.items():
        shift, scale = mods[stream][:2]
        q, k, v = (
            part.unflatten(-1, (-1, HEAD)).transpose(1, 2)
            for part in dense(w, f"{name}.{stream}_attn.qkv", normalized(x) * (1 + scale) + shift).chunk(3, -1)
        )
        root = [(y * y).mean(-1, keepdim=True).add(1e-6).rsqrt() for y in (q, k)]
        q = q * root[0] * w[f"{name}.{stream}_attn.norm.query_norm.scale"]
        k = k * root[1] * w[f"{name}.{stream}_attn.norm.key_norm.scale"]
        parts.append((q, k, v))
    q, k, v = (torch.cat(each, 2) for each in zip(*parts))
    scores = rotated(q, places) @ rotated(k, places).transpose(-1, -2) / math.sqrt(HEAD)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    attended = {"txt": mixed[:, : text.shape[1]], "img": mixed[:, text.shape[1] :]}
    for stream, x in streams.items():
        _, _, gate, shift, scale, gate_2 = mods[stream]
        x = x + gate * dense(w, f"{name}.{stream}_attn.proj", attended[stream])
        inner = F.gelu(dense(w, f"{name}.{stream}_mlp.0", normalized(x) * (1 + scale) + shift), approximate="tanh")
        streams[stream] = x + gate_2 * dense(w, f"{name}.{stream}_mlp.2", inner)
    return streams["img"], streams["txt"]


def branch(w, name, x, image, text, pooled, timestep, guidance):
    """The residuals of a branch before modulation; `image` (B, 3, 8 H, 8 W) in [-1, 1]."""
    hint = image
    for layer in range(8):
        own = f"{name}.input_hint_block.{2 * layer}"
        stride = 2 if layer in (2, 4, 6) else 1
        hint = F.conv2d(F.silu(hint) if layer else hint, w[f"{own}.weight"], w[f"{own}.bias"], stride, 1)
    tokens = dense(w, f"{name}.img_in", packed(x)) + dense(w, f"{name}.pos_embed_input", packed(hint))
    vector = two_layers(w, f"{name}.vector_in.in_layer", f"{name}.vector_in.out_layer", pooled)
    for embedder, value in (("time_in", timestep), ("guidance_in", guidance)):
        vector = vector + two_layers(w, f"{name}.{embedder}.in_layer", f"{name}.{embedder}.out_layer", waves(1000 * value))
    places = [(0, 0, 0)] * text.shape[1] + [(0, i, j) for i in range(x.shape[2] // 2) for j in range(x.shape[3] // 2)]
    places, words, residuals = torch.tensor(places), dense(w, f"{name}.txt_in", text), []
    for block in range(2):
        tokens, words = double_block(w, f"{name}.double_blocks.{block}", tokens, words, vector, places)
        residuals.append(dense(w, f"{name}.controlnet_blocks.{block}", tokens))
    return residuals


def modulated(w, name, residual, timestep, block):
    e = two_layers(w, f"{name}.timestep_embedder.linear_1", f"{name}.timestep_embedder.linear_2", waves(1000 * timestep))
    number = torch.full_like(timestep, block)
    e = e + two_layers(w, f"{name}.control_index_embedder.linear_1", f"{name}.control_index_embedder.linear_2", waves(number))
    shift, scale = dense(w, f"{name}.linear", F.silu(e))[:, None].chunk(2, -1)
    return normalized(residual) * (1 + scale) + shift


def residuals(w, x, image_lq, image_ldr, text, pooled, timestep, guidance, blocks=19):
    """What is added behind each of the base's double blocks; images in [-1, 1]."""
    shared = (text, pooled, timestep, guidance)
    lq, ldr = branch(w, "condition_lq", x, image_lq, *shared), branch(w, "condition_ldr", x, image_ldr, *shared)
    return [
        modulated(w, "modulation_lq", lq[k % 2], timestep, k) + modulated(w, "modulation_ldr", ldr[k % 2], timestep, k)
        for k in range(blocks)
    ]


def semantic_tokens(w, features):
    return two_layers(w, "connector.redux_up", "connector.redux_down", features)
