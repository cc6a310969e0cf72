"""The node that judges as an artist does, learned from the choices that Choose Yourself kept."""

import json
import math
import re
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..fluxir_core.verify.artist import asks
from ..fluxir_core.verify.taste import TasteEnsemble, learn_taste, pair_agreement, percent, taste_from_json
from .choose import client
from .folders import TASTES
from .kept_choices import choices_file, kept
from .questions import QUESTIONS
from .runtime import answer
from .verifiers import LoadedVerifier, Verifier

NODE = "My Taste"
OWN = "my choices"


class MyTaste(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRMyTaste",
            display_name=NODE,
            category="FluxIR/search",
            description="Judges as you do: learned from what you chose in Choose Yourself, or from a file that somebody shared.",
            search_aliases=["preference", "personal", "learn", "bradley-terry", "reward model", "fluxir"],
            inputs=[
                Verifier.Input(
                    "verifier",
                    tooltip="Your taste weighs this verifier's scores. Use the same one as in Choose Yourself.",
                ),
                io.Combo.Input(
                    "taste",
                    options=[OWN, *folder_paths.get_filename_list(TASTES)],
                    default=OWN,
                    tooltip="my choices: learned anew from what you chose. Or a file in models/fluxir_tastes.",
                ),
                io.String.Input(
                    "save_as",
                    default="",
                    optional=True,
                    tooltip="A name, to save what was learned as a file in models/fluxir_tastes that you can share. It holds weights "
                    "only, no image and no single choice. An existing file of this name is replaced.",
                ),
            ],
            outputs=[
                Verifier.Output(
                    display_name="verifier", tooltip="For TTS Sampler (test-time search), Verifier Ensemble or Score Images."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="How often it picks the image you preferred in new comparisons, and what it weighs, as JSON.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, taste, **_inputs):
        path = choices_file(QUESTIONS.user_of(client())) if taste == OWN else Path(_path_of(taste))
        state = path.stat() if path.is_file() else None
        return taste, state and (state.st_mtime_ns, state.st_size)

    @classmethod
    def execute(cls, verifier, taste, save_as="") -> io.NodeOutput:
        if asks(verifier.ensemble):
            raise ValueError(
                f"{NODE}: verifier holds Choose Yourself, which would ask you for nothing; connect the verifier that Choose Yourself "
                "has itself."
            )
        choices, broken = kept(QUESTIONS.user_of(client())) if taste == OWN else ([], 0)
        try:
            found = learn_taste(choices) if taste == OWN else _shared(taste)
        except (OSError, ValueError) as error:
            raise ValueError(f"{NODE}: {taste} cannot be used: {str(error).removesuffix('.')}.") from None
        theirs = pair_agreement(verifier.ensemble, choices)
        said = [found.sentence(shared=taste != OWN)]
        if not math.isnan(theirs):
            said.append(f"The verifier alone: {percent(theirs)}.")
        if not found.knows:
            said.append("The connected verifier judges alone.")
        if broken:
            said.append(f"{broken} broken lines of {choices_file().name} were left out.")
        if save_as.strip():
            said.append(_save(found, save_as.strip()))
        numbers = {"agreement": found.agreement, "error": found.error, "verifier_alone": theirs}
        report = {
            "knows": found.knows,
            "choices": found.choices,
            **{name: None if math.isnan(value) else round(value, 4) for name, value in numbers.items()},
            "weights": {name: round(weight, 4) for name, weight in zip(found.verifiers, found.weights)},
            "said": " ".join(said),
        }
        judge = TasteEnsemble(verifier.ensemble, found)
        return io.NodeOutput(LoadedVerifier(judge, verifier.patchers), json.dumps(report), ui=answer(report["said"]))


def _path_of(taste):
    return folder_paths.get_full_path_or_raise(TASTES, taste)


def _shared(taste):
    """The Taste in the file `taste`. Raises OSError, or ValueError where it holds none."""
    return taste_from_json(Path(_path_of(taste)).read_text(encoding="utf-8", errors="replace"))


def _save(taste, name):
    """Writes `taste` under `name`; returns the sentence that says so. Raises ValueError for a name that is no plain one."""
    if not re.fullmatch(r"\w[\w -]{0,59}", name):
        raise ValueError(f"{NODE}: save_as is {name[:80]!r}; use letters, digits, spaces, - and _, at most 60.")
    if not taste.knows:
        return "Nothing was saved."
    path = Path(folder_paths.get_folder_paths(TASTES)[0]) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(taste.to_json(), encoding="utf-8")
    return f"Saved as {path.name} in {path.parent.name}."
