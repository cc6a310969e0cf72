// The frontend's group titles are too small to read once the whole graph is on the screen; those of this pack's graphs are
// written a second time then, larger, in the free strip below.

import { app } from "../../../scripts/app.js";

const LARGEST = 80; // the graph's own pixels, as the strip is high
const READABLE = 18; // pixels of the screen

app.registerExtension({
  name: "FluxIR.Groups",
  setup() {
    const before = app.canvas.onDrawForeground;
    app.canvas.onDrawForeground = function (context, ...given) {
      before?.call(this, context, ...given);
      const size = Math.min(READABLE / app.canvas.ds.scale, LARGEST);
      if (size <= LiteGraph.GROUP_TEXT_SIZE) return;
      context.save();
      context.font = `bold ${size}px ${LiteGraph.GROUP_FONT ?? "Inter"}`;
      context.fillStyle = "#eee";
      context.textBaseline = "top";
      for (const group of app.canvas.graph.groups.filter(group => group.flags?.fluxir)) {
        const [left, top] = group.pos;
        context.fillText(group.title, left + 24, top + LiteGraph.NODE_TITLE_HEIGHT + 8, group.size[0] - 48);
      }
      context.restore();
    };
  },
});
