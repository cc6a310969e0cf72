// A search of one's own replaces the preset: while one is connected, the preset is gray.

import { app } from "../../../scripts/app.js";

const NODES = ["FluxIRTTSSampler", "FluxIRTTSSamplerSelect", "FluxIRBudgetPlan"];

function follow(node) {
  const preset = node.widgets?.find(widget => widget.name === "preset");
  const search = node.inputs?.find(input => input.name === "search");
  if (preset) preset.disabled = search?.link != null;
}

app.registerExtension({
  name: "FluxIR.Preset",
  beforeRegisterNodeDef(type, definition) {
    if (!NODES.includes(definition.name)) return;
    for (const event of ["onConnectionsChange", "onConfigure"]) {
      const before = type.prototype[event];
      type.prototype[event] = function (...given) {
        const answer = before?.apply(this, given);
        follow(this);
        return answer;
      };
    }
  },
});
