"""LoRAs as peft saves them, against peft itself."""

import json

import pytest
import torch
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from comfyui_fluxir.fluxir_core.lora.peft_files import load_peft, merge
from comfyui_fluxir.fluxir_core.lucidflux.files import load_lucidflux
from comfyui_fluxir.fluxir_core.lucidflux.lora import load_branch_lora
from safetensors.torch import load_file, save_file
from torch import nn

from . import lucidflux_reference as reference


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "inner": nn.ModuleDict({"to_q": nn.Linear(5, 6), "to_k": nn.Linear(5, 6)})})


def saved(folder, **options):
    """Weights that a peft LoRA merges into, and the file it was saved as."""
    from peft import LoraConfig, PeftModel

    settings = {"r": 2, "lora_alpha": 6, "target_modules": ["conv", "to_q", "to_k"], "init_lora_weights": False, **options}
    torch.manual_seed(1)
    model = PeftModel(network(), LoraConfig(**settings), adapter_name="own")
    model.save_pretrained(folder)
    return model.merge_and_unload().state_dict(), folder / "own" / "adapter_model.safetensors"


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"alpha_pattern": {"inner.to_q": 3}}, {"rank_pattern": {"to_k": 1}}], ids=str
)
def test_a_lora_is_merged_as_peft_merges_it(tmp_path, options):
    expected, path = saved(tmp_path, **options)
    merged = merge(network().state_dict(), load_peft(path), path.name)
    assert merged.keys() == expected.keys()
    for key, value in merged.items():
        torch.testing.assert_close(value, expected[key])


def test_without_its_configuration_a_lora_is_taken_as_it_is(tmp_path):
    _, path = saved(tmp_path)
    assert {layer.scale for layer in load_peft(path).values()} == {3.0}
    path.with_name("adapter_config.json").unlink()
    assert {layer.scale for layer in load_peft(path).values()} == {1.0}


@pytest.mark.parametrize(("options", "message"), [({"use_dora": True}, "which is no part of a plain LoRA|is a DoRA")], ids=["dora"])
def test_another_kind_is_refused(tmp_path, options, message):
    _, path = saved(tmp_path, target_modules=["to_q"], **options)
    with pytest.raises(WeightFileError, match=message):
        load_peft(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {}, "holds no LoRA"),
        (lambda w: {key: value for key, value in w.items() if "lora_A" in key}, "is incomplete"),
        (lambda w: {key: value.fill_(torch.nan) for key, value in w.items()}, "NaN"),
        (lambda w: w | {"base_model.model.conv.bias": torch.zeros(4)}, "holds base_model.model.conv.bias, which is no part"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, change, message):
    _, path = saved(tmp_path)
    save_file(change(load_file(path)), path)
    with pytest.raises(WeightFileError, match=f"^adapter_model.safetensors.*{message}"):
        load_peft(path)


def test_a_lora_of_other_sizes_is_not_merged(tmp_path):
    _, path = saved(tmp_path)
    other = network().state_dict()
    with pytest.raises(WeightFileError, match="^a.safetensors changes conv, which is of another size here"):
        merge(other | {"conv.weight": torch.zeros(4, 3, 1, 1)}, load_peft(path), "a.safetensors")


# LucidNFT


def lucidnft(path, rank=2):
    """A LoRA in LucidNFT's layout: what its code calls the branches, the modulations and the blocks' own names."""
    modules = {
        "dual_condition_branch.lq.double_blocks.0.img_attn.qkv": ("condition_lq.double_blocks.0.img_attn.qkv", 128, 384),
        "dual_condition_branch.pre.double_blocks.1.txt_mlp.0": ("condition_ldr.double_blocks.1.txt_mlp.0", 128, 512),
        "dual_condition_branch.modulation_pre.linear": ("modulation_ldr.linear", 128, 256),
        "connector.redux_up": ("connector.redux_up", 12, 24),
    }
    generator, weights = torch.Generator().manual_seed(5), {}
    for name, (_, inputs, outputs) in modules.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator)
        weights[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    (path.parent / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}), encoding="utf-8"
    )
    return {
        own: weights[f"base_model.model.{name}.lora_B.weight"] @ weights[f"base_model.model.{name}.lora_A.weight"] * 2
        for name, (own, *_) in modules.items()
    }


def test_lucidnft_changes_the_parts_that_its_code_names(tmp_path):
    deltas = lucidnft(tmp_path / "lora_condition" / "adapter_model.safetensors")
    save_file(reference.random_weights(), tmp_path / "lucidflux.safetensors")
    before = load_lucidflux(tmp_path / "lucidflux.safetensors").state_dict
    layers = load_branch_lora(tmp_path / "lora_condition" / "adapter_model.safetensors")
    after = merge(before, layers, "adapter_model.safetensors")
    for key, value in after.items():
        expected = before[key] + deltas[key.removesuffix(".weight")] if key.removesuffix(".weight") in deltas else before[key]
        torch.testing.assert_close(value, expected)
    assert layers.keys() == deltas.keys()


def test_a_lora_of_another_network_is_not_lucidnfts(tmp_path):
    _, path = saved(tmp_path)
    with pytest.raises(WeightFileError, match="^adapter_model.safetensors changes conv, which is no part of LucidFlux; choose"):
        load_branch_lora(path)
