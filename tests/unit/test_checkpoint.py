"""Adapter files describe themselves and refuse what they are not."""

import json
import pickle
import re
import time
from dataclasses import replace

import pytest
import torch
from comfyui_fluxir.fluxir_core.adapter.checkpoint import check_base, load_adapter, save_adapter
from comfyui_fluxir.fluxir_core.adapter.model import AdapterConfig, FluxIRAdapter
from comfyui_fluxir.fluxir_core.flux.dimensions import FluxDimensions
from comfyui_fluxir.fluxir_core.flux.weight_files import WeightFileError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

DIMS = FluxDimensions(
    hidden_size=128, num_heads=1, context_dim=8, vec_dim=4, double_blocks=1, single_blocks=1, guidance_embed=False
)


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return FluxIRAdapter(AdapterConfig(DIMS, rank=2, text_tokens=3, inject="before", guidance=3.5))


@pytest.fixture
def path(adapter, tmp_path):
    save_adapter(tmp_path / "adapter.safetensors", adapter, {"license": "Apache-2.0"})
    return tmp_path / "adapter.safetensors"


def rewrite(path, change_weights=lambda weights: None, change_metadata=lambda metadata: None):
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    change_weights(weights)
    change_metadata(metadata)
    save_file(weights, path, metadata)


def test_a_saved_adapter_comes_back_with_its_configuration_and_weights(adapter, path):
    loaded = load_adapter(path)
    assert loaded.config == adapter.config
    assert loaded.metadata["license"] == "Apache-2.0"
    assert loaded.state_dict.keys() == adapter.state_dict().keys()
    assert all(torch.equal(loaded.state_dict[key], value) for key, value in adapter.state_dict().items())
    assert set(loaded.report.matched) == set(adapter.state_dict())
    assert (loaded.report.missing, loaded.report.unused) == ([], [])


def test_a_saved_adapter_may_be_read_by_whoever_may_read_a_new_file(path, tmp_path):
    (tmp_path / "new").touch()
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_the_report_names_unknown_weights(path):
    rewrite(path, lambda weights: weights.update(extra=torch.zeros(1)))
    report = load_adapter(path).report
    assert report.unused == ["extra"]
    assert "1 unused (extra)" in str(report)


def pickled(path):
    path.write_bytes(pickle.dumps({"theta_y": [0.0]}))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def with_nan(path):
    rewrite(path, lambda weights: weights["theta_p"].fill_(float("nan")))


def of_another_kind(path):
    rewrite(path, change_metadata=lambda metadata: metadata.update(kind="lora"))


def of_a_later_version(path):
    rewrite(path, change_metadata=lambda metadata: metadata.update(format_version="2"))


def without_a_weight(path):
    rewrite(path, lambda weights: weights.pop("theta_y"))


def with_another_shape(path):
    rewrite(path, lambda weights: weights.update(theta_y=torch.zeros(5)))


def with_a_broken_configuration(path):
    rewrite(path, change_metadata=lambda metadata: metadata.update(config='{"dims": {}}'))


def with_impossible_sizes(path):
    def without_heads(metadata):
        metadata["config"] = metadata["config"].replace('"num_heads": 1', '"num_heads": 0')

    rewrite(path, change_metadata=without_heads)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (pickled, "cannot be read as a safetensors file"),
        (truncated, "cannot be read as a safetensors file"),
        (with_nan, "theta_p holds NaN"),
        (of_another_kind, "its kind is lora"),
        (of_a_later_version, "has format version 2"),
        (without_a_weight, "1 missing \\(theta_y\\)"),
        (with_another_shape, "theta_y has shape \\[5\\]"),
        (with_a_broken_configuration, "unreadable configuration"),
        (with_impossible_sizes, "unreadable configuration"),
    ],
)
def test_an_unusable_file_is_refused_in_one_sentence(path, spoil, reason):
    spoil(path)
    with pytest.raises(WeightFileError, match=reason) as refused:
        load_adapter(path)
    message = str(refused.value)
    assert message.startswith("adapter.safetensors") and message.endswith(".") and "\n" not in message


def test_a_missing_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(WeightFileError, match="cannot be read"):
        load_adapter(tmp_path / "none.safetensors")


def test_a_wrong_base_is_refused_with_what_differs(adapter):
    check_base(adapter.config, DIMS)
    with pytest.raises(WeightFileError, match="single_blocks 1 instead of 38"):
        check_base(adapter.config, replace(DIMS, single_blocks=38))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("double_blocks", 10**6, "double_blocks is 1000000"),
        ("single_blocks", -1, "single_blocks is -1"),
        ("hidden_size", "x", "hidden_size is 'x'"),
        ("hidden_size", True, "hidden_size is True"),
        ("theta", float("nan"), "theta is nan"),
        ("axes_dim", [16, "x"], "axes_dim is"),
        ("depth", 3, "it does not describe FluxDimensions"),
    ],
)
def test_sizes_that_no_model_has_are_refused_at_once(path, field, value, said):
    def change(metadata):
        config = json.loads(metadata["config"])
        config["dims"][field] = value
        metadata["config"] = json.dumps(config)

    rewrite(path, change_metadata=change)
    started = time.monotonic()
    with pytest.raises(WeightFileError, match=f"^adapter.safetensors has an unreadable configuration .*{re.escape(said)}"):
        load_adapter(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(path, kind):
    rewrite(path, lambda weights: weights.update(theta_y=weights["theta_y"].to(kind)))
    with pytest.raises(WeightFileError, match="theta_y holds .* numbers, which are no weights; use a file that is not quantized"):
        load_adapter(path)


def test_a_configuration_nested_without_end_is_refused(path):
    rewrite(path, change_metadata=lambda metadata: metadata.update(config="[" * 10**5))
    with pytest.raises(WeightFileError, match="unreadable configuration .config is no JSON"):
        load_adapter(path)


@pytest.mark.parametrize("place", ["double_blocks.999999", "single_blocks.7"])
def test_a_transformer_with_a_gap_in_its_blocks_is_none(place):
    weights = {f"{name}.weight": torch.zeros(128, 4) for name in ("img_in", "txt_in", "vector_in.in_layer")}
    weights |= {"double_blocks.0.x": torch.zeros(1), "single_blocks.0.x": torch.zeros(1), f"{place}.x": torch.zeros(1)}
    with pytest.raises(ValueError, match=f"no.* a whole FLUX transformer's: {place.split('.')[0]}.1 is missing"):
        FluxDimensions.from_state_dict(weights)
