// What a node of this pack says when it is done stays on it, in words.

import { app } from "../../../scripts/app.js";
import { ComfyWidgets } from "../../../scripts/widgets.js";

const NAME = "answer";

function answerOf(node) {
  const there = node.widgets?.find(widget => widget.name === NAME);
  if (there) return there;
  const { widget } = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app);
  widget.serialize = false; // neither saved nor sent
  widget.options.serialize = false;
  widget.options.read_only = true;
  if (widget.element) widget.element.readOnly = true;
  return widget;
}

app.registerExtension({
  name: "FluxIR.Answers",
  beforeRegisterNodeDef(type, definition) {
    if (!definition.name.startsWith("FluxIR")) return;
    const before = type.prototype.onExecuted;
    type.prototype.onExecuted = function (message, ...given) {
      before?.call(this, message, ...given);
      const text = message?.text;
      if (text) answerOf(this).value = [text].flat().join("\n");
    };
  },
});
