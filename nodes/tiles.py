"""The node that makes a model of any kind compute large latents tile by tile."""

from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from ..fluxir_core.execution.tiles import OVERLAP
from .tile_context import TILES
from .tile_hooks import NODE, TileHooks


class TileModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TileModel",
            display_name=NODE,
            category="FluxIR",
            description="Samples pictures of any size: the latent is sampled as one, from one noise, but the model sees it "
            "tile by tile, and the tiles are blended at every step.",
            search_aliases=[
                "tiled diffusion",
                "multidiffusion",
                "ultimate upscale",
                "tiled sampler",
                "large picture",
                "tiles",
                "mixture of diffusers",
                "out of memory",
                "fluxir",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model; adapters and LoRAs are applied before or after this node."),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip="Largest side of a tile in pixels. 0 chooses it: 1024, less where ComfyUI predicts "
                    "that the memory is short. A latent that is not larger is sampled as without this node.",
                ),
                io.Float.Input(
                    "overlap",
                    default=OVERLAP,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="How much neighbouring tiles share at least, of a tile's side. 0 shows seams.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for any sampler or guider, also TTS Sampler."),
            ],
        )

    @classmethod
    def execute(cls, model, tile, overlap) -> io.NodeOutput:
        if 0 < tile < 64:
            raise ValueError(f"{NODE}: tile is {tile} pixels; use 0 to choose by memory, or at least 64.")
        model, hooks = model.clone(), TileHooks(tile, overlap)
        for kind, hook in (
            (WrappersMP.CALC_COND_BATCH, hooks.calc_cond_batch),
            (WrappersMP.PREPARE_SAMPLING, hooks.prepare_sampling),
        ):
            model.remove_wrappers_with_key(kind, TILES)  # of two, the last decides
            model.add_wrapper_with_key(kind, TILES, hook)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, TILES, hooks.cleanup)
        return io.NodeOutput(model)
