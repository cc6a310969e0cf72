"""My Taste in the ComfyUI of this process: files that somebody shared, and what it refuses."""

import pytest
from comfyui_fluxir.fluxir_core.verify.artist import ArtistsChoice
from comfyui_fluxir.fluxir_core.verify.ensemble import DefaultEnsemble, Ensemble
from comfyui_fluxir.fluxir_core.verify.niqe import NIQE
from comfyui_fluxir.fluxir_core.verify.taste import Choice, Taste

KNOWN = Taste(("niqe",), (1.0,), (1.0,), 20, 0.7, 0.04, 0.05)


@pytest.fixture
def judged(comfy, monkeypatch, tmp_path):
    """judged(content, ensemble): what My Taste says, the file `shared.json` having that content."""
    from comfyui_fluxir.nodes import taste
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    file = tmp_path / "shared.json"
    monkeypatch.setattr(taste, "_path_of", lambda _name: file)

    def run(content, ensemble=None):
        file.write_bytes(content)
        return taste.MyTaste.execute(LoadedVerifier(ensemble or DefaultEnsemble()), "shared.json").ui["text"][0]

    return run


def test_a_shared_file_speaks_of_who_taught_it(judged):
    said = judged(KNOWN.to_json().encode())
    assert said == "It picks the image the person who taught it preferred in 70 % of new comparisons (± 8 %)."


def test_ones_own_is_compared_with_the_verifier_alone(comfy, monkeypatch):
    from comfyui_fluxir.nodes import taste
    from comfyui_fluxir.nodes.verifiers import LoadedVerifier

    natural = [Choice([{"niqe": 1.0}, {"niqe": 0.0}], [0])] * 27
    monkeypatch.setattr(taste, "kept", lambda _user: (natural + [Choice(own.scores, [1]) for own in natural[:3]], 0))
    said = taste.MyTaste.execute(LoadedVerifier(Ensemble([NIQE()])), taste.OWN).ui["text"][0]
    assert said == "It picks the image you preferred in 90 % of new comparisons (± 11 %). The verifier alone: 90 %."


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x81", b"PK\x03\x04\xe9", b""])
def test_a_file_that_is_no_text_is_refused_in_one_sentence(judged, content):
    sentence = r"^My Taste: shared\.json cannot be used: the file is no taste; give one that My Taste saved\.$"
    with pytest.raises(ValueError, match=sentence):
        judged(content)


@pytest.mark.parametrize("wrapped", [False, True])
def test_who_would_ask_for_nothing_is_refused(judged, wrapped):
    def ask(_offer):
        raise AssertionError("somebody was asked")

    asking = ArtistsChoice(DefaultEnsemble(), ask)
    with pytest.raises(ValueError, match="^My Taste: verifier holds Choose Yourself, .*; connect the verifier that .* has itself"):
        judged(KNOWN.to_json().encode(), Ensemble([asking]) if wrapped else asking)
