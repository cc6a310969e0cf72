"""A folder of models as `fluxir restore --model` takes it: a FLUX transformer, its VAE, a FluxIR adapter, a UMMF LoRA."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...fluxir_core.adapter.checkpoint import check_base, load_adapter
from ...fluxir_core.adapter.model import FluxIRAdapter
from ...fluxir_core.execution.oom import is_out_of_memory
from ...fluxir_core.execution.tiled_vae import decode_in_tiles, encode_in_tiles
from ...fluxir_core.lora.few_steps import read_schedules
from ...fluxir_core.lora.files import FEW_STEPS, PLAIN, check_lora_base, load_lora
from ...fluxir_core.lora.lora import LoRA
from ...fluxir_core.ummf.mode import ConditionMode
from ..bundled import find
from .single_file import load_transformer, load_vae
from .transformer import flux_dimensions


@dataclass
class Models:
    """`lora` and `mode` are a UMMF LoRA's, `few_steps` a student's; `schedules` {steps: sigmas} those that its file states,
    or without one the adapter's."""

    transformer: torch.nn.Module
    vae: "NetworkSpaceVAE"
    adapter: FluxIRAdapter
    lora: LoRA | None
    mode: ConditionMode | None
    few_steps: LoRA | None
    schedules: dict


class NetworkSpaceVAE:
    """A diffusers VAE that takes images in [0, 1] and gives latents in the space the transformer works in, both in any
    float type; it computes in its own.

    Where `tile` is set, images of more latent pixels a side are coded in tiles of it: diffusers' own tiling knows no TAESD
    of 16 channels.
    """

    def __init__(self, vae):
        self.vae: Any = vae
        self.tile: int | None = None
        self.scale = vae.config.scaling_factor
        self.shift = getattr(vae.config, "shift_factor", None) or 0.0

    def encode(self, images) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8); a variational encoder gives its mode."""
        return encode_in_tiles(self._encode, images, self.tile)

    def decode(self, latents) -> torch.Tensor:
        """(B, 16, h, w) -> (B, 3, 8h, 8w), about [0, 1]."""
        return decode_in_tiles(self._decode, latents, self.tile)

    def _encode(self, images):
        encoded = self.vae.encode((images * 2 - 1).to(self.vae.dtype))
        raw = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (raw - self.shift) * self.scale

    def _decode(self, latents):
        return self.vae.decode((latents / self.scale + self.shift).to(self.vae.dtype)).sample / 2 + 0.5


def load_models(folder, device="cpu", dtype=torch.float32):
    """Loads `folder`: "miniature" for the bundled one, or a path.

    A path holds either the three folders of models/miniature (diffusion_models, vae, fluxir_adapters), one safetensors file
    in each, or a diffusers FLUX model (transformer, vae) with a fluxir_adapters folder beside them; in either case a folder
    loras may hold a UMMF LoRA and a few-step LoRA. Raises ValueError with one sentence on a folder that is neither.
    """
    folder = model_folder(folder)
    adapter_path = only_file(folder / "fluxir_adapters")
    adapter_file = load_adapter(adapter_path)
    transformer, vae = open_transformer(folder, dtype), open_vae(folder, dtype)
    check_base(adapter_file.config, flux_dimensions(transformer))
    adapter = FluxIRAdapter(adapter_file.config)
    adapter.load_state_dict(adapter_file.state_dict)
    loras = _load_loras(folder / "loras", adapter_file.config.dims)
    lora, mode, _ = loras.get(False, (None, None, None))
    few_steps, _, student_path = loras.get(True, (None, None, None))
    modules: list[Any] = [transformer, vae.vae, adapter, lora, few_steps]
    for module in filter(None, modules):
        module.to(device).eval().requires_grad_(False)
        if next(module.parameters()).dtype != dtype:
            module.to(dtype)
    return Models(transformer, vae, adapter, lora, mode, few_steps, read_schedules(student_path or adapter_path))


def model_folder(name):
    """The folder that `name` means: a path, or the name of a bundled model. Raises ValueError when there is none."""
    own = find(name)
    folder = own.folder if own else Path(name)
    if not folder.is_dir():
        raise ValueError(
            f"--model: there is no model folder {name}; give the path of one (see docs/command-line.md), or 'miniature'."
        )
    return folder


@contextmanager
def whole_model(folder):
    """What diffusers and transformers raise for a folder that lacks files, or holds broken ones, is said in one sentence."""
    try:
        yield
    except Exception as error:  # their readers raise whatever a broken file leads them to
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(f"--model: {folder} is no whole FLUX model ({reason[:200]}); download it again.") from None


def open_transformer(folder, dtype=torch.float32) -> Any:
    """The frozen FluxTransformer2DModel of `folder`, in eval mode, on the CPU. Raises ValueError as `load_models`."""
    if (folder / "transformer").is_dir():
        from diffusers import FluxTransformer2DModel

        with whole_model(folder / "transformer"):
            model = FluxTransformer2DModel.from_pretrained(folder / "transformer", local_files_only=True, torch_dtype=dtype)
    else:
        model = load_transformer(only_file(folder / "diffusion_models"), dtype)
    return model.eval().requires_grad_(False)


def open_vae(folder, dtype=torch.float32):
    """The frozen NetworkSpaceVAE of `folder`, in eval mode, on the CPU. Raises ValueError as `load_models`."""
    if (folder / "transformer").is_dir():
        from diffusers import AutoencoderKL

        with whole_model(folder / "vae"):
            vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, torch_dtype=dtype)
    else:
        vae = load_vae(only_file(folder / "vae"))
        vae = vae if dtype == torch.float32 else vae.to(dtype)
    return NetworkSpaceVAE(vae.eval().requires_grad_(False))


def _load_loras(folder, dims):
    """{whether it is a few-step LoRA: (LoRA, mode, path)} of the files in `folder`."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        loaded = load_lora(path)
        if loaded.metadata.get("kind") == PLAIN:
            raise ValueError(
                f"--model: {path} is a LoRA for ComfyUI's own Load LoRA, which this command does not read; take it out."
            )
        check_lora_base(loaded, dims)
        student = loaded.metadata.get("kind") == FEW_STEPS
        if student in found:
            kind = "few-step" if student else "UMMF"
            raise ValueError(f"--model: {folder} holds two {kind} LoRAs, {found[student][2].name} and {path.name}; take one out.")
        lora = LoRA(loaded.shapes, dims)
        lora.load_state_dict(loaded.state_dict)
        found[student] = lora, loaded.mode, path
    return found


def only_file(folder):
    """The one safetensors file in `folder`. Raises ValueError when there is none, or more."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(
            f"--model: {folder} holds {len(files)} safetensors files; give a model folder with exactly one there, or 'miniature'."
        )
    return files[0]
