"""Model patches in a tiled call: the part of their image that belongs to the tile, and a key-value cache of its own."""

import copy
import inspect
from contextlib import contextmanager

import comfy.utils
import torch

from ..fluxir_core.execution.tiles import crop_to_tile

PIXELS, MASKS, LATENTS = ("image", "inpaint_image", "render_video"), ("mask",), ("hint_latent",)
"""What core's model patches call what they keep of an image: IMAGEs, MASKs, latents."""
COMPUTED = ("encoded_image", "encoded_image_size", "temp_data", "cached_features", "prepared_render")
"""What they computed of the whole, to be computed again of the tile."""
SEEN_WITH = "patch"
"""What a patch calls another one that looks at the image for it."""


class TilePatches:
    """The model patches of one run, tile by tile: copies that see the tile's part of their image, made once."""

    def __init__(self):
        self._copies, self._caches = {}, {}

    def clear(self):
        self._copies.clear()
        self._caches.clear()

    def apart(self, transformer_options):
        """Whether tiles have to be computed one at a time, because a patch acts on a whole call."""
        entries = [entry for entries in _patches(transformer_options).values() for entry in entries]
        return any(_looks(owner) or _caches(owner) for owner in map(_owner, entries))

    @contextmanager
    def of(self, transformer_options, tile, x, ratio):
        """`transformer_options` for the call on `tile` of the latent x (..., H, W), `ratio` pixels a latent pixel; other patches,
        which do not look at an image, are shared."""
        patches = _patches(transformer_options)
        caching = {id(owner): owner for entries in patches.values() for owner in map(_owner, entries) if _caches(owner)}
        kept = {key: owner.cache for key, owner in caching.items()}
        for key, owner in caching.items():
            owner.cache = self._caches.setdefault((key, tile), {})
        try:
            own = {name: [self._entry(entry, tile, x, ratio) for entry in entries] for name, entries in patches.items()}
            yield {**transformer_options, "patches": own} if own else transformer_options
        finally:
            for key, owner in caching.items():
                self._caches[key, tile], owner.cache = owner.cache, kept[key]

    def _entry(self, entry, tile, x, ratio):
        if isinstance(entry, tuple):  # a class of layers, and the function that runs in their place
            return tuple(self._entry(part, tile, x, ratio) for part in entry)
        if inspect.ismethod(entry):
            own = self._copy(entry.__self__, tile, x, ratio)
            return entry if own is entry.__self__ else getattr(own, entry.__name__)
        return self._copy(entry, tile, x, ratio)

    def _copy(self, owner, tile, x, ratio):
        if not _looks(owner):
            return owner
        key = (id(owner), tile)
        if key not in self._copies:
            own = copy.copy(owner)
            seen = getattr(own, SEEN_WITH, None)
            if _looks(seen):
                setattr(own, SEEN_WITH, self._copy(seen, tile, x, ratio))
            for name, crop in _crops(own):
                setattr(own, name, crop(getattr(own, name), tile, x, ratio))
            for name in COMPUTED:
                if hasattr(own, name):
                    setattr(own, name, None)
            self._copies[key] = own
        return self._copies[key]


def _patches(transformer_options):
    return transformer_options.get("patches", {})


def _owner(entry):
    """What holds an entry's state: the object whose method it is, or itself."""
    if isinstance(entry, tuple):
        entry = entry[-1]
    return getattr(entry, "__self__", entry)


def _looks(owner):
    """Whether a patch looks at an image, itself or by another patch."""
    if owner is None or isinstance(owner, (type, torch.nn.Module)) or inspect.isfunction(owner):
        return False
    return bool(_crops(owner)) or (getattr(owner, SEEN_WITH, None) is not owner and _looks(getattr(owner, SEEN_WITH, None)))


def _caches(owner):
    """Whether a patch keeps keys and values from call to call, as core's Flux KV Cache does."""
    return isinstance(getattr(owner, "cache", None), dict)


def _crops(owner):
    """[(attribute, how it is cropped)] of what `owner` keeps of an image."""
    kinds = ((PIXELS, _crop_image), (MASKS, _crop_mask), (LATENTS, _crop_latent))
    return [(name, crop) for names, crop in kinds for name in names if isinstance(getattr(owner, name, None), torch.Tensor)]


def _crop_image(image, tile, x, ratio):
    """IMAGE (B, H, W, C), brought to the whole latent's size as core's patches do."""
    height, width = (ratio * extent for extent in x.shape[-2:])
    planes = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "area", "center")
    return tile.times(ratio).of(planes).movedim(1, -1)


def _crop_mask(mask, tile, x, ratio):
    """MASK (..., H, W)."""
    height, width = (ratio * extent for extent in x.shape[-2:])
    planes = comfy.utils.common_upscale(mask.reshape(-1, 1, *mask.shape[-2:]), width, height, "bilinear", "center")
    return tile.times(ratio).of(planes).unflatten(0, mask.shape[:-2]).squeeze(mask.ndim - 2)


def _crop_latent(latent, tile, x, _ratio):
    return crop_to_tile(latent, tile, tuple(x.shape[-2:]))
