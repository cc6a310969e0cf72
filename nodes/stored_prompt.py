"""The node that loads a prompt's embeddings from a file, so that no text encoder is needed."""

import folder_paths
from comfy_api.latest import io

from ..fluxir_core.flux.prompt_files import load_prompt
from .runtime import speaking_for

NODE = "Load Stored Prompt"
FOLDER = "model_patches"


class LoadStoredPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRLoadStoredPrompt",
            display_name=NODE,
            category="FluxIR/conditioning",
            description="Loads a prompt that somebody encoded for FLUX before: restoration needs no text encoder.",
            search_aliases=["prompt embeddings", "no text encoder", "lucidflux", "omgsr", "conditioning file", "fluxir"],
            inputs=[
                io.Combo.Input(
                    "prompt_name",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="prompt_embeddings.pt of W2GenAI/LucidFlux, a file that `fluxir convert` made with --prompt, or "
                    "another with prompt_embeds and pooled_prompt_embeds. Put it in models/model_patches.",
                ),
                io.Float.Input(
                    "guidance",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="FLUX.1-dev's guidance: 4 for LucidFlux, 1 for one-step restorers.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompt, for any guider or sampler.")],
        )

    @classmethod
    def execute(cls, prompt_name, guidance) -> io.NodeOutput:
        with speaking_for(NODE):
            prompt = load_prompt(folder_paths.get_full_path_or_raise(FOLDER, prompt_name))
        values = {"pooled_output": prompt.pooled[None].float(), "guidance": guidance}
        return io.NodeOutput([[prompt.text[None].float(), values]])
