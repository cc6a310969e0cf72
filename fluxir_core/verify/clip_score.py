"""CLIP score (Radford et al., 2021; Hessel et al., 2021): how well an image agrees with a text."""

from typing import Any

import torch
from torch.nn import functional as F

from ..flux.weight_files import check_model_config, read_json_file
from .pretrained import VerifierFileError, build, find, load_state, score_crops

SOURCE = "openai/clip-vit-large-patch14 on Hugging Face"


def load_clip(folder, text=True):
    """(model, side): the CLIP model in a transformers `folder` and the pixels a side of the images it sees.

    The folder holds config.json and model.safetensors. With `text` the model is a CLIPModel, without it a
    CLIPVisionModelWithProjection. Raises VerifierFileError when a file is missing or is not CLIP's.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

    described, weights = (find(folder, name, SOURCE) for name in ("config.json", "model.safetensors"))
    state = load_state(weights, SOURCE)
    try:
        check_model_config(read_json_file(described), "clip", {name: value.shape for name, value in state.items()})
    except ValueError as error:
        raise VerifierFileError(f"verify: {described} is not a full CLIP model's ({error}); get it from {SOURCE}.") from None
    try:
        config = CLIPConfig.from_pretrained(str(folder), local_files_only=True)
        vision: Any = config.vision_config
    except Exception:  # whatever a value of another type leads transformers to
        raise VerifierFileError(f"verify: {described} is not a full CLIP model's; get it from {SOURCE}.") from None
    if text:
        model = build(lambda: CLIPModel(config), state, weights, SOURCE)
    else:
        vision.projection_dim = config.projection_dim
        state = {name: value for name, value in state.items() if name.startswith(("vision_model.", "visual_projection."))}
        model = build(lambda: CLIPVisionModelWithProjection(vision), state, weights, SOURCE)
    return model, vision.image_size


def _pooled(features):
    """CLIP's projected features (B, D) in float32; transformers 4 returns them bare, 5 as `pooler_output`."""
    return getattr(features, "pooler_output", features).float()


class CLIPScore:
    """Cosine similarity, -1 to 1, of an image's crops (see `crops`) and a prompt, averaged.

    PickScore's folder (yuvalkirstain/PickScore_v1) has the same form and is scored the same way, up to its scale.
    """

    name = "clip_score"

    def __init__(self, model_folder, prompt):
        """`model_folder`: a transformers folder (config.json, model.safetensors, tokenizer.json, or else vocab.json and
        merges.txt) such as openai/clip-vit-large-patch14. A prompt of more than 77 tokens is cut.

        Raises VerifierFileError for files, ValueError for an empty prompt.
        """
        if not prompt.strip():
            raise ValueError("CLIPScore: the prompt is empty; describe the image.")
        from transformers import CLIPTokenizer

        either = [("tokenizer.json", name) for name in ("vocab.json", "merges.txt")]
        for names in ("config.json", "model.safetensors", *either):  # all of them before the slow part
            find(model_folder, names, SOURCE)
        self.module, self.side = load_clip(model_folder)
        length = self.module.config.text_config.max_position_embeddings
        tokenizer = CLIPTokenizer.from_pretrained(str(model_folder), local_files_only=True)
        self.tokens = tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt")["input_ids"]

    @torch.no_grad()
    def __call__(self, images, reference=None):
        text = _pooled(self.module.get_text_features(self.tokens.to(self.module.device)))

        def score(views):
            return F.cosine_similarity(_pooled(self.module.get_image_features(views)), text)

        return score_crops(images, self.side, self.module, score)
