"""The node that makes a model of any kind compute large latents tile by tile."""

from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from ..fluxir_core.execution.tiles import OVERLAP
from .runtime import speaker
from .tile_context import TILES
from .tile_hooks import NODE, TileHooks


class TileModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRTileModel",
            display_name=NODE,
            category="FluxIR",
            description="Samples images of any size: the model sees the latent tile by tile, and the tiles are blended at every "
            "step, so that no seam shows.",
            search_aliases=[
                "tiled diffusion",
                "multidiffusion",
                "tiled upscale",
                "ultimate upscale",
                "tiled sampler",
                "large image",
                "high resolution",
                "mixture of diffusers",
                "out of memory",
                "fluxir",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model. Adapters and LoRAs may be applied before or after this node."),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip="Largest side of a tile in pixels. 0 chooses it: 1024, or less if ComfyUI predicts that memory is "
                    "short. A latent that fits into one tile is sampled as without this node.",
                ),
                io.Float.Input(
                    "overlap",
                    default=OVERLAP,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="How much neighboring tiles share at least, as a part of a tile's side. 0 shows seams.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model, for any sampler or guider, also for TTS Sampler (test-time search)."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, tile, overlap) -> io.NodeOutput:
        if 0 < tile < 64:
            raise ValueError(f"{NODE}: tile is {tile} pixels; use 0 to choose by memory, or at least 64.")
        model, hooks = model.clone(), TileHooks(tile, overlap, speaker(cls))
        for kind, hook in (
            (WrappersMP.CALC_COND_BATCH, hooks.calc_cond_batch),
            (WrappersMP.PREPARE_SAMPLING, hooks.prepare_sampling),
        ):
            model.remove_wrappers_with_key(kind, TILES)  # of two, the last decides
            model.add_wrapper_with_key(kind, TILES, hook)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, TILES, hooks.cleanup)
        return io.NodeOutput(model)
