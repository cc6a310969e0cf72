"""`fluxir convert`: LucidFlux's public files as one safetensors file, which every host loads."""

import logging
from pathlib import Path

import torch

from ...fluxir_core.flux.prompt_files import load_prompt
from ...fluxir_core.lora.peft_files import merge
from ...fluxir_core.lucidflux.files import load_lucidflux, save_lucidflux
from ...fluxir_core.lucidflux.lora import load_branch_lora
from ..outputs import check_apart, check_file

PRECISIONS = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def add_arguments(parser):
    parser.add_argument("input", type=Path, metavar="IN", help="lucidflux.pth of W2GenAI/LucidFlux, or a safetensors file of it")
    parser.add_argument("output", type=Path, metavar="OUT", help="the safetensors file to write")
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="prompt_embeddings.pt of W2GenAI/LucidFlux, kept in OUT")
    parser.add_argument(
        "--lora", type=Path, metavar="FILE", help="adapter_model.safetensors of LucidNFT's lora_condition, merged into OUT"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of the matrices: fp8 halves bf16 (default: as in IN)")


def run(arguments):
    check_file("OUT", arguments.output, (".safetensors",), make_folder=True)
    check_apart({"OUT": arguments.output}, {"IN": arguments.input, "--prompt": arguments.prompt, "--lora": arguments.lora})
    loaded = load_lucidflux(arguments.input)
    metadata = {"source": arguments.input.name, "license": "FLUX.1-dev Non-Commercial"}
    if arguments.lora:
        loaded.state_dict = merge(loaded.state_dict, load_branch_lora(arguments.lora), arguments.lora.name)
        metadata["lora"] = f"{arguments.lora.parent.name}/{arguments.lora.name}"
    if arguments.precision:
        # Only matrices: biases and norms are small, and fp8 has three bits for them.
        kind = PRECISIONS[arguments.precision]
        loaded.state_dict = {key: value.to(kind) if value.ndim == 2 else value for key, value in loaded.state_dict.items()}
    prompt = arguments.prompt and load_prompt(arguments.prompt)
    if prompt and prompt.words:
        metadata["prompt"] = prompt.words
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    save_lucidflux(arguments.output, loaded, prompt, metadata)
    logging.info("%s: %s%s", arguments.output, loaded.report, ", with its prompt" if prompt else "")
