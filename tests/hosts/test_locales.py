"""The texts in `locales`, against the nodes as the real ComfyUI describes them to its frontend."""

import json

from comfyui_fluxir.tools.locales import LOCALES, english

from .public_restorers import TEST_PACK


def shipped(language):
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (LOCALES / language).glob("*.json")}


def test_the_english_texts_are_what_the_nodes_say_now(server):
    nodes = server.get("/object_info").items()
    said = english({name: node for name, node in nodes if not node["python_module"].endswith(TEST_PACK)})
    assert shipped("en") == said, "run python -m comfyui_fluxir.tools.locales, and translate what changed"


def test_comfyui_serves_every_language(server):
    served = server.get("/i18n")
    for language in (path.name for path in LOCALES.iterdir()):
        content = shipped(language)
        assert served[language] == {**content["main"], "nodeDefs": content["nodeDefs"]}
