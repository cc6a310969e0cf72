"""Writes the English texts that the frontend looks up, `locales/en`, from the nodes' own schemas.

    python -m comfyui_fluxir.tools.locales [--port P]

Run it when a node's text has changed. It names the nodes whose texts the other folders of `locales` have to follow.
"""

import argparse
import json
import sys
import tempfile

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, comfyui_path

LOCALES = ROOT / "locales"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8199)
    port = parser.parse_args().port
    try:
        with tempfile.TemporaryDirectory() as base, ComfyUIServer(comfyui_path(NEWEST), base, port) as server:
            texts = english(server.get("/object_info"))
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The English texts were not written: {error}")
    for name, content in texts.items():
        path = LOCALES / "en" / f"{name}.json"
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in sorted(before.keys() | content.keys()) if before.get(key) != content.get(key)]
        print(f"{path.name}: {', '.join(changed) or 'nothing changed'}")
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def english(object_info):
    """{file's name: content} of the English locale, from ComfyUI's /object_info with no other pack installed."""
    own = {name: node for name, node in object_info.items() if node["python_module"].startswith("custom_nodes.")}
    core = {name: node for name, node in object_info.items() if name not in own}
    return {
        "main": {"nodeCategories": {part: part for part in sorted(_categories(own) - _categories(core))}},
        "nodeDefs": {name: _node(own[name]) for name in sorted(own)},
    }


def _categories(nodes):
    """The parts of the nodes' categories. The frontend translates them one by one, and core's it knows already."""
    return {part for node in nodes.values() for part in node["category"].split("/")}


def _node(node):
    inputs = [
        shown for section in ("required", "optional") for item in node["input"].get(section, {}).items() for shown in _shown(*item)
    ]
    outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {key: {"name": name, "tooltip": options["tooltip"]} for key, name, options in inputs},
        "outputs": {str(index): {"name": name, "tooltip": tooltip} for index, (name, tooltip) in enumerate(outputs)},
    }


def _shown(name, spec):
    """(key, name, options) of an input, or of the slots of one that grows, which the frontend shows in its place.

    The frontend knows such a slot as `group.slot`, and looks it up with an underscore for the dot.
    """
    kind, options = spec
    if kind != "COMFY_AUTOGROW_V3":
        return [(name, options.get("display_name", name), options)]
    template = options["template"]
    ((_kind, slot),) = template["input"]["required"].values()
    slots = [f"{template['prefix']}{index}" for index in range(template["max"])]
    return [(f"{name}_{each}", each, slot) for each in slots]


if __name__ == "__main__":
    main()
