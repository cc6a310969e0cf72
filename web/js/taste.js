// A button on Choose Yourself and My Taste that deletes the choices that were kept.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const WORDS = {
  en: { button: "Delete my choices", title: "Delete my choices?", message: "Deletes what My Taste learned from: {} choice(s). This cannot be undone." },
  zh: { button: "删除我的选择", title: "删除我的选择？", message: "将删除“我的品味”学习所用的 {} 次选择。此操作无法撤销。" },
};

const words = () => WORDS[app.extensionManager.setting.get("Comfy.Locale")] ?? WORDS.en;

async function remove() {
  const { choices } = await (await api.fetchApi("/fluxir/choices")).json();
  const { title, message } = words();
  const sure = await app.extensionManager.dialog.confirm({ title, message: message.replace("{}", choices), type: "delete" });
  if (sure) await api.fetchApi("/fluxir/choices", { method: "DELETE" });
}

app.registerExtension({
  name: "fluxir.taste",
  nodeCreated(node) {
    if (!["FluxIRChooseYourself", "FluxIRMyTaste"].includes(node.comfyClass)) return;
    const button = node.addWidget("button", "delete_choices", null, remove, { serialize: false });
    button.label = words().button;
    button.serialize = false; // nor in the graph's own file
  },
});
