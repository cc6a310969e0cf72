"""Captions by Qwen2.5-VL from a local folder: the prompt that steers a restoration in ResFlow-Tuner (arXiv 2603.22027)."""

import hashlib
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from .flux.weight_files import WeightFileError, check_model_config, read_json_file, read_shapes
from .image.pixels import normalize

SOURCE = "Qwen/Qwen2.5-VL-7B-Instruct on Hugging Face"
REQUEST = (
    "Describe this image in one paragraph: its subjects, materials, textures, layout and lighting. Name only what can be "
    "seen. Do not mention blur, noise, compression or other defects."
)
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    f"<|vision_start|><|image_pad|><|vision_end|>{REQUEST}<|im_end|>\n<|im_start|>assistant\n"
)
"""The request in the form that the public folder's chat template gives it."""
MOST_TOKENS = 160
MOST_PIXELS, SHORTEST_SIDE = 1024 * 1024, 56
CAPTIONS_KEPT = 64
_captions = OrderedDict()


class CaptionerFileError(ValueError):
    """A captioner's file is missing, unreadable or not the public one; the sentence says which, where and whence."""


def _find(folder):
    """Looks for all that the public folder holds; its weights may be in one file or in several that an index names."""
    kinds = [("config.json",), ("preprocessor_config.json",), ("tokenizer.json", "vocab.json")]
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    files = {single.name}
    if index.is_file() and not single.is_file():
        try:
            files = {str(name) for name in read_json_file(index)["weight_map"].values()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise CaptionerFileError(f"caption: {index} names no files of weights; get it from {SOURCE}.") from None
    kinds += [(name,) for name in sorted(files)] if index.is_file() else [(single.name, index.name)]
    for alternatives in kinds:
        if not any((folder / name).is_file() for name in alternatives):
            raise CaptionerFileError(f"caption: {' or '.join(alternatives)} is missing; put it into {folder}, from {SOURCE}.")
    try:
        shapes = {key: shape for name in files for key, shape in read_shapes(folder / name).items()}
        check_model_config(read_json_file(folder / "config.json"), "qwen2_5_vl", shapes)
    except WeightFileError as error:
        raise CaptionerFileError(f"caption: in {folder}, {error}") from None
    except ValueError as error:
        raise CaptionerFileError(f"caption: {folder}'s config.json is not Qwen2.5-VL's ({error}); get it from {SOURCE}.") from None


def _pixels(image):
    """`image` (3, H, W) in [0, 1] as the captioner sees it: (h, w, 3) uint8, about a megapixel at most."""
    scale = min(1, (MOST_PIXELS / (image.shape[1] * image.shape[2])) ** 0.5)
    if scale < 1:
        size = [max(SHORTEST_SIDE, round(extent * scale)) for extent in image.shape[1:]]
        image = F.interpolate(image[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    return (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


class Captioner:
    """Describes images in words, one paragraph each: decoding is greedy, so that an image always has the same caption.

    Captions are kept for the process, the latest 64 of them: an unchanged image costs nothing and reads no weights.
    """

    def __init__(self, folder):
        """`folder`: a transformers folder of Qwen2.5-VL, laid out as Qwen/Qwen2.5-VL-7B-Instruct; the 3B one works too.

        Raises CaptionerFileError when a file is missing or describes another model. Weights are read when `module` is used.
        """
        self.folder = Path(folder)
        _find(self.folder)

    @cached_property
    def module(self):
        """The network, in the files' own precision; move it to where it should run. Raises CaptionerFileError."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        options: dict = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, "torch_dtype": "auto"}
        try:
            loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(self.folder), **options)
            module, found = loaded
        except Exception as error:
            raise self._unreadable("weights", error) from error
        if found["missing_keys"]:
            named = sorted(found["missing_keys"])[0]
            raise CaptionerFileError(f"caption: the weights in {self.folder} lack {named}; get them from {SOURCE}.")
        return module.eval().requires_grad_(False)

    @cached_property
    def processor(self) -> Any:
        """Makes the network's inputs of texts and images."""
        from transformers import Qwen2_5_VLProcessor

        try:
            return Qwen2_5_VLProcessor.from_pretrained(str(self.folder), local_files_only=True)
        except Exception as error:
            raise self._unreadable("tokenizer and image preparation", error) from error

    def _unreadable(self, what, error):
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return CaptionerFileError(f"caption: the {what} in {self.folder} cannot be read ({first}); get them from {SOURCE}.")

    def knows(self, images):
        """Whether all of `images` have captions already, so that the network is not needed."""
        return all(self._key(pixels) in _captions for pixels in self._seen(images))

    def __call__(self, images, on_token=None):
        """The captions of `images` (B, 3, H, W) in [0, 1]: a list of B texts of at most 160 tokens.

        `on_token()` is called before every token; what it raises ends the work. Raises ValueError for NaN or infinity.
        """
        captions = []
        for pixels in self._seen(images):
            key = self._key(pixels)
            if key not in _captions:
                _captions[key] = self._describe(pixels, on_token)
            _captions.move_to_end(key)
            captions.append(_captions[key])
        while len(_captions) > CAPTIONS_KEPT:
            _captions.popitem(last=False)
        return captions

    def _seen(self, images):
        images, finite = normalize(images, SHORTEST_SIDE)
        if not finite.all():
            raise ValueError(f"caption: image {finite.tolist().index(False) + 1} holds NaN or infinity; give one without.")
        return [_pixels(image) for image in images]

    def _key(self, pixels):
        return hashlib.sha256(f"{pixels.shape}{CHAT}{self.folder.resolve()}".encode() + pixels.tobytes()).hexdigest()

    @torch.no_grad()
    def _describe(self, pixels, on_token):
        inputs = self.processor(text=[CHAT], images=[Image.fromarray(pixels)], return_tensors="pt")
        inputs = {name: value.to(self.module.device) for name, value in inputs.items()}
        watch = {} if on_token is None else {"streamer": _Watch(on_token)}
        # The public folder asks for sampling at a temperature of almost 0; left in, transformers warns that it is unused.
        tokens = self.module.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False, temperature=None, **watch)
        text = self.processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return " ".join(text.split())


class _Watch:
    """What transformers calls a streamer: told of the prompt and then of each token."""

    def __init__(self, on_token):
        self.put, self.end = (lambda tokens: on_token()), (lambda: None)
