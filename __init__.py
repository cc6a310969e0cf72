"""FluxIR for ComfyUI. ComfyUI calls `comfy_entrypoint`; nothing is imported or patched before that."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import FluxIRExtension

    return FluxIRExtension()
