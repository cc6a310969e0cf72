"""Search reports in the metadata of saved images, also where ComfyUI takes the search from its cache."""

import hashlib
import json
import sys
from collections import OrderedDict

METADATA, SAMPLER = "fluxir_search", "FluxIRTTSSampler"
REPORTS_KEPT = 64
_reports = OrderedDict()


def keep_report(hidden, report):
    """Puts `report` beside the graph that runs, for whatever saves images behind the node of `hidden`, and keeps it for graphs in
    which ComfyUI takes that node from its cache. Each node has a report of its own: {node id: report}."""
    if hidden is None:
        return
    if hidden.extra_pnginfo is not None:
        hidden.extra_pnginfo.setdefault(METADATA, {})[hidden.unique_id] = report
    if hidden.prompt and hidden.unique_id in hidden.prompt:
        _reports[_signature(hidden.prompt, hidden.unique_id)] = report
        while len(_reports) > REPORTS_KEPT:
            _reports.popitem(last=False)


def add_known_reports(queued):
    """What ComfyUI was asked to run (the JSON of /prompt), with the reports of searches that it need not repeat. One that is
    repeated all the same, as of a photo that changed, replaces its report in `keep_report` before anything is saved."""
    graph = queued.get("prompt") or {}
    searches = [node for node, each in graph.items() if each.get("class_type") == SAMPLER]
    known = {node: _reports[own] for node in searches if (own := _signature(graph, node)) in _reports}
    if known:
        extra = queued.setdefault("extra_data", {}).setdefault("extra_pnginfo", {})
        extra[METADATA] = {**extra.get(METADATA, {}), **known}
    return queued


def register():
    """Lets the ComfyUI server of this process, if it is one, ask `add_known_reports`."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.add_on_prompt_handler(add_known_reports)


def _signature(graph, node, known=None):
    """A digest of `node` of `graph` (API format) and of all that it is made of, whatever the nodes' ids: as long as it is the same,
    ComfyUI has the same result for it. `known` are those of other nodes."""
    known = {} if known is None else known
    if node in known or node not in graph:
        return known.get(node)
    known[node] = None  # a graph that runs in a circle is ComfyUI's to refuse
    each, inputs = graph[node], {}
    for name, value in each.get("inputs", {}).items():
        link = isinstance(value, list) and len(value) == 2
        inputs[name] = [_signature(graph, str(value[0]), known), value[1]] if link else _number(value)
    text = json.dumps([each.get("class_type"), inputs], sort_keys=True, default=str)
    known[node] = hashlib.sha256(text.encode()).hexdigest()
    return known[node]


def _number(value):
    """`value`, a whole number as an int: ComfyUI turns the 1 that a browser sends for a FLOAT into 1.0 before it runs the graph."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
