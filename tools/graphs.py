"""Writes the shipped graphs, `workflows` and `subgraphs`, from their descriptions in `graph_list`.

    python -m comfyui_fluxir.tools.graphs [--port P]

Run it when a graph's description or a node's inputs have changed, then `tools.thumbnails`.
"""

import argparse
import json
import sys
import tempfile
import uuid

from ..demo.comfyui import ROOT, ComfyUIError, ComfyUIServer
from ..demo.environment import NEWEST, SetupError, comfyui_path
from .graph import Library
from .graph_blueprint import blueprint
from .graph_list import BLUEPRINTS, GRAPHS

NAMESPACE = uuid.UUID("5b0c1e64-6f1d-4a6e-9a52-1f0a6e1d0c01")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8199)
    port = parser.parse_args().port
    try:
        with tempfile.TemporaryDirectory() as base, ComfyUIServer(comfyui_path(NEWEST), base, port) as server:
            write(server.get("/object_info"))
    except (ComfyUIError, SetupError) as error:
        sys.exit(f"The graphs were not written: {error}")


def write(object_info):
    """Writes every graph for the frontend and for the API, and every blueprint."""
    library = Library(object_info)
    for name, describe in GRAPHS.items():
        graph = describe(library)
        _write(f"workflows/{name}.json", graph.ui(str(uuid.uuid5(NAMESPACE, name))))
        _write(f"workflows/api/{name}.json", graph.api())
    for name, describe in BLUEPRINTS.items():
        _write(f"subgraphs/{name}.json", blueprint(describe(library), name, lambda part, name=name: _id(name, part)))


def _id(*parts):
    return str(uuid.uuid5(NAMESPACE, "/".join(parts)))


def _write(path, content):
    (ROOT / path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path, flush=True)


if __name__ == "__main__":
    main()
