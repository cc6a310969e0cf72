"""UMMF's third stream (arXiv 2603.22027): condition tokens beside a FLUX transformer's own, in one sequence."""

import math
from itertools import accumulate, pairwise

import torch
from torch.nn import functional as F

from ..flux.layers import EMBEDDING_DIM, apply_rotary, rotary_embedding, timestep_embedding

HALF = torch.finfo(torch.float16)


def condition_positions(output_ids, height, width, mode, place=(1, 0, 0)):
    """Positions of a condition image's tokens.

    Shared positions cover the output's area whatever the condition's size: tokens of both that show the same place have the same
    position. Offset ones stand on their own grid.

    Args:
        output_ids: positions of the sampled tokens, (rows, columns, 3).
        height, width: of the condition's grid, in tokens.
        mode: ConditionMode.
        place: (index, rows, columns) from the output's first token at which offset positions begin.

    Returns:
        (height * width, 3), row by row.
    """
    shared = mode.positions == "shared"
    ids = output_ids.new_empty(height, width, 3)
    ids[..., 0] = output_ids[0, 0, 0] + (0 if shared else place[0])
    for axis, size in ((1, height), (2, width)):
        given = output_ids[:, 0, 1] if axis == 1 else output_ids[0, :, 2]
        start, spacing = given[0], given[1] - given[0] if len(given) > 1 else 1
        places = torch.arange(size, device=given.device, dtype=given.dtype)
        if shared:
            places = (places + 0.5) * len(given) / size - 0.5
        else:
            start = start + place[axis]
        ids[..., axis] = (start + spacing * places).unsqueeze(1 if axis == 1 else 0)
    return ids.flatten(0, 1)


def reference_places(sizes, output, method="offset"):
    """Where FLUX.1 Kontext's reference images lie: (index, rows, columns) of tokens from the output's first, for each of
    `sizes` (height, width), in latent pixels like the size of the `output`.

    `method` is ComfyUI's reference_latents_method: "index" gives every image an index of its own, "uxo" puts them behind the
    output along its diagonal, "offset" (and anything else) puts all at index 1, each right of those before or below them.
    """
    places, height, width = [], 0, 0
    for number, (rows, columns) in enumerate(sizes, 1):
        if method.startswith("index"):
            index, top, left = number, 0, 0
        elif method == "uxo":
            index, top, left = 0, 2 * _tokens(output[0]) + height, 2 * _tokens(output[1]) + width
            height, width = height + rows, width + columns
        else:
            index = 1
            top, left = (0, width) if rows + height > columns + width else (height, 0)
            height, width = max(height, top + rows), max(width, left + columns)
        places.append((index, _tokens(top), _tokens(left)))
    return places


def _tokens(extent):
    """Tokens along `extent` latent pixels."""
    return -(-extent // 2)


class ConditionBranch:
    """The blocks of a FLUX transformer as condition tokens see them.

    Args:
        modules: `modules(name)` is the base's module of BFL's name, to be called on a tensor.
        dims: FluxDimensions of the base.
        mode: ConditionMode.
        lora: LoRA that changes these tokens only, or None; one for all tokens belongs in the modules instead.
        lora_strength: factor of what it adds.
    """

    def __init__(self, modules, dims, mode, lora=None, lora_strength=1.0):
        self.modules, self.dims, self.mode = modules, dims, mode
        self.lora, self.lora_strength = lora, lora_strength

    def vector(self, timestep, guidance, pooled):
        """What modulates the condition tokens (B, hidden), for the output's `timestep` (B,) and `guidance` (B,) or None,
        and the prompt's `pooled` embedding (B, vec)."""

        def embed(name, x):
            return self.modules(f"{name}.out_layer")(F.silu(self.modules(f"{name}.in_layer")(x)))

        def scalar(name, fixed, shared):
            value = shared if fixed is None else torch.full((len(pooled),), fixed, device=pooled.device)
            return embed(name, timestep_embedding(value, EMBEDDING_DIM).to(pooled))

        vector = scalar("time_in", self.mode.timestep, timestep)
        if self.dims.guidance_embed and not (self.mode.guidance is None and guidance is None):
            vector = vector + scalar("guidance_in", self.mode.guidance, guidance)
        return vector + embed("vector_in", pooled)

    def start(self, tokens, ids, vector, strength=1.0, shown=None):
        """Begins the stream of one model call.

        Args:
            tokens: of all condition images, (B, M, 64).
            ids: their positions, a list of (M_i, 3) for each condition image.
            vector: what modulates them, (B, hidden); see `vector`.
            strength: factor on the attention that they get, above 0.
            shown: bool (B,), False for rows whose tokens get none, as if they were not there; None shows all.

        Returns:
            A ConditionStream.

        Raises:
            ValueError: `strength` is not above 0.
        """
        return ConditionStream(self, tokens, ids, vector, attention_bias(strength, shown))

    def remember(self, tokens, ids, vector, attention):
        """Computes every block's keys and values of tokens that attend only to themselves.

        Args:
            tokens: of all condition images, (B, M, 64).
            ids: their positions, a list of (M_i, 3) for each condition image.
            vector: what modulates them, (B, hidden); see `vector`.
            attention: as for ConditionStream.attend.

        Returns:
            A list of (key, value) for each block, (B, heads, M, head_dim) both.
        """
        rotary, spans = self._rotary(ids), image_spans(ids, self.mode)
        memory, state = [], self._apply("img_in", tokens)
        for index in range(self.dims.blocks):
            query, key, value, leave = self.enter(index, state, vector, rotary)
            memory.append((key, value))
            if index < self.dims.blocks - 1:
                state = leave(attend_to_own(query, key, value, spans, attention))
        return memory

    def enter(self, index, state, vector, rotary):
        """Takes the stream through a block up to its attention.

        Args:
            index: of the block, double blocks first.
            state: (B, M, hidden).
            vector: what modulates it, (B, hidden).
            rotary: the rotary embedding of its positions.

        Returns:
            Queries, keys and values, (B, heads, M, head_dim) each, and the function that takes the attention's output
            (B, M, hidden) to the next state.
        """
        if index < self.dims.double_blocks:
            return self._enter_double(f"double_blocks.{index}", state, vector, rotary)
        return self._enter_single(f"single_blocks.{index - self.dims.double_blocks}", state, vector, rotary)

    def _enter_double(self, block, state, vector, rotary):
        modulation = self._apply(f"{block}.img_mod.lin", F.silu(vector))[:, None]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, -1)
        qkv = self._apply(f"{block}.img_attn.qkv", self._normalized(state, shift, scale))

        def leave(attended):
            after = state + gate * self._apply(f"{block}.img_attn.proj", attended)
            hidden = self._apply(f"{block}.img_mlp.0", self._normalized(after, mlp_shift, mlp_scale))
            return _within(after + mlp_gate * self._apply(f"{block}.img_mlp.2", F.gelu(hidden, approximate="tanh")))

        return *self._heads(f"{block}.img_attn.norm", qkv, rotary), leave

    def _enter_single(self, block, state, vector, rotary):
        shift, scale, gate = self._apply(f"{block}.modulation.lin", F.silu(vector))[:, None].chunk(3, -1)
        fused = self._apply(f"{block}.linear1", self._normalized(state, shift, scale))
        qkv, hidden = fused.tensor_split([3 * self.dims.hidden_size], -1)

        def leave(attended):
            joined = torch.cat([attended, F.gelu(hidden, approximate="tanh")], -1)
            return _within(state + gate * self._apply(f"{block}.linear2", joined))

        return *self._heads(f"{block}.norm", qkv, rotary), leave

    def _heads(self, norm, qkv, rotary):
        query, key, value = qkv.unflatten(-1, (3, self.dims.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = (self.modules(f"{norm}.{kind}_norm")(x).to(value) for kind, x in (("query", query), ("key", key)))
        return apply_rotary(query, rotary), apply_rotary(key, rotary), value

    def _rotary(self, ids):
        return rotary_embedding(torch.cat(ids)[None], self.dims.axes_dim, self.dims.theta)

    def _normalized(self, state, shift, scale):
        return F.layer_norm(state, (self.dims.hidden_size,), eps=1e-6) * (1 + scale) + shift

    def _apply(self, name, x):
        out = self.modules(name)(x)
        change = self.lora.delta(name, x) if self.lora is not None else None
        return out if change is None else out + self.lora_strength * change


def _within(state):
    """`state` without the infinities that float16 runs into, as ComfyUI and diffusers keep FLUX's own streams."""
    return state.nan_to_num(posinf=HALF.max, neginf=HALF.min) if state.dtype == torch.float16 else state


class ConditionStream:
    """Condition tokens in joint attention with the output's, block by block through one model call."""

    def __init__(self, branch, tokens, ids, vector, bias):
        self.branch, self.vector, self.rotary = branch, vector, branch._rotary(ids)
        self.joint = branch.mode.attention == "joint"
        self.spans, self.bias = image_spans(ids, branch.mode), bias
        # By block, so that gradient checkpointing may run any of them again.
        self.states = {0: branch._apply("img_in", tokens)}

    def attend(self, index, query, key, value, attention):
        """Computes a block's attention with the condition, and takes the condition through the block.

        Args:
            index: of the block, double blocks first.
            query, key, value: of the base's tokens, (B, heads, N, head_dim).
            attention: `attention(q, k, v, bias)` returns (B, N, hidden); it takes an additive bias that broadcasts to
                (B, heads, N, N), or None.

        Returns:
            The output for the base's tokens, (B, N, hidden).
        """
        branch, count = self.branch, query.shape[2]
        own_query, own_key, own_value, leave = branch.enter(index, self.states[index], self.vector, self.rotary)
        if not self.joint:
            attended = attend_to_own(own_query, own_key, own_value, self.spans, attention)
            mixed = attend_with_kv(query, key, value, own_key, own_value, self.bias, attention)
        else:
            own = (own_query, own_key, own_value)
            joined = (torch.cat([base, extra.to(base)], 2) for base, extra in zip((query, key, value), own))
            both = attention(*joined, self._joint_bias(query, count, own_query.shape[2]))
            mixed, attended = both[:, :count], both[:, count:]
        if index < branch.dims.blocks - 1:  # FLUX drops the condition behind its last block
            # A block that gradient checkpointing runs again keeps its first state: the new one would hold its whole graph.
            self.states.setdefault(index + 1, leave(attended))
        return mixed

    def _joint_bias(self, like, count, extra):
        if self.bias is None and len(self.spans) == 1:
            return None
        own = self.bias if isinstance(self.bias, torch.Tensor) else like.new_tensor(self.bias or 0.0).view(1, 1, 1, 1)
        bias = like.new_zeros(len(own), 1, count + extra, count + extra)
        bias[..., :count, count:] = bias[..., count:, :count] = own
        if len(self.spans) > 1:
            bias[..., count:, count:] = float("-inf")
        for first, last in self.spans:
            bias[..., count + first : count + last, count + first : count + last] = 0
        return bias


def image_spans(ids, mode):
    """(first, last) condition tokens that see each other: all, or in the mode's images "apart" those of each image. `ids` is a
    list of positions (M_i, 3), one for each image."""
    ends = [0, *accumulate(map(len, ids))]
    return list(pairwise(ends)) if mode.images == "apart" else [(0, ends[-1])]


def attend_to_own(query, key, value, spans, attention):
    """Attention of condition tokens to themselves alone.

    Args:
        query, key, value: of the condition tokens, (B, heads, M, head_dim).
        spans: (first, last) of the tokens that see each other, in order; see `image_spans`.
        attention: as for ConditionStream.attend.

    Returns:
        (B, M, hidden).
    """
    parts = (attention(*(x[:, :, first:last] for x in (query, key, value)), None) for first, last in spans)
    return torch.cat(list(parts), 1)


def attend_with_kv(query, key, value, more_keys, more_values, bias, attention):
    """Attention of the base's queries to its own and more keys and values.

    Args:
        query, key, value: of the base's tokens, (B, heads, N, head_dim).
        more_keys, more_values: (B, heads, M, head_dim).
        bias: what is added to the attention's logits of these: a number, or (B, 1, 1, 1), or None.
        attention: as for ConditionStream.attend.

    Returns:
        (B, N, hidden).
    """
    count, extra = key.shape[2], more_keys.shape[2]
    if bias is not None:
        row = query.new_zeros(len(bias) if isinstance(bias, torch.Tensor) else 1, 1, 1, count + extra)
        row[..., count:] = bias
        bias = row.expand(-1, -1, query.shape[2], -1)
    joined = (torch.cat([base, more.to(base)], 2) for base, more in ((key, more_keys), (value, more_values)))
    return attention(query, *joined, bias)


def log_strength(strength):
    """Strength as a bias on attention, None for 1: the weights are multiplied by `strength` before they are normalized.

    Raises ValueError unless it is above 0.
    """
    if not strength > 0:
        raise ValueError(f"condition strength is {strength}; use a value above 0, or leave the condition out.")
    return None if strength == 1 else math.log(strength)


def attention_bias(strength, shown=None):
    """The bias on the attention of condition tokens: `log_strength`'s, or (B, 1, 1, 1) where `shown`, bool (B,), hides some
    rows' tokens."""
    if shown is None:
        return log_strength(strength)
    return torch.where(shown, log_strength(strength) or 0.0, float("-inf")).view(-1, 1, 1, 1)
