"""Core's MultiGPU and Select Device nodes on a MODEL that our networks steer, with two CPU devices in the place of GPUs."""

import pytest
import torch

from .comfy_host import prompt, random_latent
from .lucidflux_host import LucidFluxHost, write_lora
from .ummf_host import conditioned

OTHER = torch.device("cpu", 1)
GUIDED = dict(cfg=3.0, negative=prompt(9, 12), steps=2)
"""Two conditionings that cannot be joined: one for each device."""


@pytest.fixture
def devices(comfy, monkeypatch):
    """(MultiGPU CFG Split, Select Model Device) on a machine with two devices."""
    import comfy.model_management
    from comfy_extras import nodes_multigpu

    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: [torch.device("cpu"), OTHER])
    # Core keeps models of earlier tests in its list whose patchers are gone, and MultiGPU CFG Split stumbles over them.
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", [])
    return (
        lambda model: nodes_multigpu.MultiGPUCFGSplitNode.execute(model, 2).result[0],
        lambda model: nodes_multigpu.SelectModelDeviceNode.execute(model, "gpu:1").result[0],
    )


@pytest.fixture(params=["fluxir", "lucidflux", "ummf"])
def ours(request, host, tmp_path_factory, ummf, ummf_loras):
    """(a function that puts the network on a MODEL, its key, its class, options for sampling)."""
    if request.param == "fluxir":
        return host.apply, "fluxir", "FluxIRAdapter", {}
    if request.param == "lucidflux":
        return LucidFluxHost(host, tmp_path_factory.mktemp("lucidflux")).apply, "fluxir_lucidflux", "LucidFlux", {}

    def apply(model):
        return ummf.ApplyUMMFLoRA.execute(model, "ummf-alone.safetensors", 1.0).result[0]

    return apply, ummf.KEY, "LoRA", {"positive": conditioned(ummf), "negative": conditioned(ummf, positive=prompt(9, 12))}


@pytest.fixture
def called(monkeypatch):
    """Which networks of ours were called, by their class, in order; a LoRA is called by its first layer."""
    from comfyui_fluxir.fluxir_core.adapter.model import FluxIRAdapter
    from comfyui_fluxir.fluxir_core.lora.lora import LoRA
    from comfyui_fluxir.fluxir_core.lucidflux.model import LucidFlux

    found = []
    for kind, method in ((FluxIRAdapter, "forward"), (LucidFlux, "forward"), (LoRA, "delta")):
        original = getattr(kind, method)

        def watched(self, *args, original=original):
            found.append(self)
            return original(self, *args)

        monkeypatch.setattr(kind, method, watched)
    return found


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_conditionings_on_several_devices_are_steered_by_copies_of_the_network(host, devices, ours, called, order):
    split, _ = devices
    apply, key, kind, options = ours
    expected = host.sample(apply(host.model), **(GUIDED | options))
    called.clear()
    model = split(apply(host.model)) if order == "ours first" else apply(split(host.model))
    torch.testing.assert_close(host.sample(model, **(GUIDED | options)), expected, rtol=1e-4, atol=1e-4)
    networks = {id(network) for network in called}
    assert len(networks) == 2 and {type(network).__name__ for network in called} == {kind}
    [copy] = model.get_additional_models_with_key("multigpu")
    [own], [theirs] = (each.get_additional_models_with_key(key) for each in (model, copy))
    assert (own.load_device, theirs.load_device) == (torch.device("cpu"), OTHER)
    assert {id(own.model), id(theirs.model)} == networks


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_the_network_goes_where_the_model_is_moved(host, devices, ours, called, order):
    _, select = devices
    apply, key, _kind, options = ours
    expected = host.sample(apply(host.model), **(GUIDED | options))
    called.clear()
    model = select(apply(host.model)) if order == "ours first" else apply(select(host.model))
    assert model.load_device == OTHER
    torch.testing.assert_close(host.sample(model, **(GUIDED | options)), expected, rtol=1e-4, atol=1e-4)
    [moved] = model.get_additional_models_with_key(key)
    assert moved.load_device == OTHER
    assert {id(network) for network in called} == {id(moved.model)}


def test_a_copy_keeps_the_lora_on_lucidflux(host, devices, tmp_path):
    from comfyui_fluxir.nodes.lucidflux import ApplyLucidFluxLoRA

    split, select = devices
    lucid = LucidFluxHost(host, tmp_path)
    write_lora(tmp_path / "lora_multigpu")
    changed = ApplyLucidFluxLoRA.execute(lucid.lucidflux, "lora_multigpu/adapter_model.safetensors", 1.0).result[0]
    model = lucid.apply(lucidflux=changed)
    expected = host.sample(model, **GUIDED)
    assert (expected - host.sample(lucid.apply(), **GUIDED)).abs().mean() > 1e-3
    for moved in (split(model), select(model)):
        torch.testing.assert_close(host.sample(moved, **GUIDED), expected, rtol=1e-4, atol=1e-4)


def test_a_network_is_made_again_without_the_dynamic_loader(host):
    """As core asks it of every loader: `cached_patcher_init`, with `disable_dynamic`."""
    import comfy.model_patcher

    make, arguments = host.adapter.patcher.cached_patcher_init
    again = make(*arguments, disable_dynamic=True)
    assert type(again) is comfy.model_patcher.ModelPatcher and again.model is not host.adapter.patcher.model
    for (name, weight), other in zip(host.adapter.patcher.model.state_dict().items(), again.model.state_dict().values()):
        assert torch.equal(weight, other), name


def test_the_same_adapter_twice_is_loaded_once_on_a_moved_model(host, devices):
    _, select = devices
    model = host.apply(host.apply(select(host.model), strength=0.5), lq=random_latent(4), strength=0.5)
    assert len(model.get_additional_models_with_key("fluxir")) == 1
    both = host.apply(host.apply(strength=0.5), lq=random_latent(4), strength=0.5)
    torch.testing.assert_close(host.sample(model), host.sample(both), rtol=1e-4, atol=1e-4)
