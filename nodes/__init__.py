"""The pack's ComfyUI nodes. ComfyUI is imported here and nowhere else in the pack."""

from comfy_api.latest import ComfyExtension, io

from .adapter import ApplyFluxIRAdapter, LoadFluxIRAdapter, NullTextConditioning
from .folders import register_model_folders


class FluxIRExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_model_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadFluxIRAdapter, ApplyFluxIRAdapter, NullTextConditioning]
