// Shows the candidates of Choose Yourself and sends back what was clicked. The server tells when there is something new, and
// forgets a question when it is answered, so a page that is opened again finds the one that is open.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const WORDS = {
  en: {
    best: "Which is the best? Click it, or press its number.",
    rank: "Click the candidates in order, the best first. As many as you like.",
    degraded: "degraded image",
    zoom: "Enlarge under the mouse (Z)",
    done: "Done (Enter)",
    again: "Start over (Backspace)",
    skip: "Let the verifier choose",
    cancel: "Cancel the run",
    left: "{} s left",
  },
  zh: {
    best: "哪张最好？点击它，或按它的编号。",
    rank: "按从好到差的顺序点击候选图像，点几张都可以。",
    degraded: "退化图像",
    zoom: "放大鼠标所指处（Z）",
    done: "完成（Enter）",
    again: "重新排序（Backspace）",
    skip: "交给验证器选择",
    cancel: "取消运行",
    left: "还剩 {} 秒",
  },
};

const STYLE = `
.fluxir-choice { inset: 0; width: 100vw; height: 100vh; max-width: none; max-height: none; margin: 0; border: 0; padding: 8px;
  outline: 0; background: #202020; color: #ddd; font: 15px/1.4 system-ui, sans-serif; }
.fluxir-choice[open] { display: flex; flex-direction: column; gap: 8px; }
.fluxir-choice header, .fluxir-choice footer { display: flex; flex-wrap: wrap; gap: 6px 20px; align-items: center; justify-content: center; }
.fluxir-choice main { flex: 1; min-height: 0; display: grid; gap: 8px; grid-auto-rows: minmax(0, 1fr); }
.fluxir-choice figure { margin: 0; min-height: 0; display: flex; flex-direction: column; text-align: center; }
.fluxir-choice .view { flex: 1; min-height: 0; overflow: hidden; padding: 0; background: none; border: 3px solid transparent; border-radius: 6px; }
.fluxir-choice button.view { cursor: pointer; }
.fluxir-choice button.view:hover, .fluxir-choice .view.chosen { border-color: #5adc78; }
.fluxir-choice img { display: block; width: 100%; height: 100%; object-fit: contain; }
.fluxir-choice.zoomed img { transform: scale(3); }
.fluxir-choice button { font: inherit; color: inherit; }
.fluxir-choice footer button { background: #383838; border: 1px solid #555; border-radius: 6px; padding: 4px 12px; cursor: pointer; }`;

const say = key => (WORDS[app.extensionManager.setting.get("Comfy.Locale")] ?? WORDS.en)[key];

const post = (path, content) =>
  api.fetchApi(`/fluxir/choice/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ client: api.clientId, ...content }),
  });

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const HASTE = 500; // milliseconds: a click or a key that was meant for what the question covers

let shown = null; // {id, remove}
let announced = null; // this page's id, as the server was told
let looks = 0;

// Tells the server that this page can answer, and shows what is open for it.
async function look() {
  if (!api.clientId) return;
  announced = api.clientId;
  const own = ++looks;
  const answer = await post("open").catch(() => null); // while the server is away
  if (!answer?.ok) return;
  const { question } = await answer.json();
  if (own !== looks || question?.id === shown?.id) return; // a later look knows more
  close();
  if (question) shown = show(question);
}

function close() {
  shown?.remove();
  shown = null;
}

function show(question) {
  let ranking = [];
  const address = name => api.apiURL(`/fluxir/choice/${question.id}/${name}`);
  const send = async order => {
    const answer = await post("answer", { question: question.id, ranking: order });
    if (answer.ok) close();
    else await look();
  };

  const captions = [];
  const views = Array.from({ length: question.candidates }, (_, number) => {
    const view = make("button", { className: "view" }, make("img", { src: address(number), alt: `${number + 1}`, draggable: false }));
    view.dataset.candidate = number;
    view.onclick = () => pick(number);
    return view;
  });
  const figures = views.map((view, number) => make("figure", {}, view, (captions[number] = make("figcaption", {}))));
  if (question.degraded) {
    const view = make("div", { className: "view" }, make("img", { src: address("degraded"), alt: say("degraded"), draggable: false }));
    figures.unshift(make("figure", {}, view, make("figcaption", { textContent: say("degraded") })));
  }

  const draw = () => views.forEach((view, number) => {
    const place = ranking.indexOf(number);
    view.classList.toggle("chosen", place >= 0);
    captions[number].textContent = question.rank ? (place < 0 ? "–" : `${place + 1}.`) : number + 1;
  });
  const since = Date.now();
  const pick = number => {
    if (number >= question.candidates || Date.now() < since + HASTE) return;
    if (!question.rank) return send([number]);
    ranking = ranking.includes(number) ? ranking.filter(other => other !== number) : [...ranking, number];
    if (ranking.length === question.candidates) send(ranking);
    draw();
  };
  const again = () => {
    ranking = [];
    draw();
  };
  const zoom = () => dialog.classList.toggle("zoomed");
  const done = () => ranking.length && send(ranking);
  const button = (word, onclick) => make("button", { textContent: say(word), onclick, className: `fluxir-${word}` });

  const left = make("span", { role: "timer" });
  const until = Date.now() + 1000 * question.seconds;
  const tick = () => (left.textContent = say("left").replace("{}", Math.max(0, Math.round((until - Date.now()) / 1000))));

  // As many columns as show the images largest.
  const size = columns => Math.min(innerWidth / columns, question.aspect * innerHeight / Math.ceil(figures.length / columns));
  const columns = figures.map((_, i) => i + 1).reduce((best, count) => (size(count) > size(best) ? count : best));
  const dialog = make(
    "dialog",
    { className: "fluxir-choice", tabIndex: -1 },
    make("style", { textContent: STYLE }),
    make("header", {}, make("strong", { textContent: say(question.rank ? "rank" : "best") }), left),
    make("main", {}, ...figures),
    make("footer", {}, button("zoom", zoom), ...(question.rank ? [button("done", done), button("again", again)] : []),
      button("skip", () => send([])), button("cancel", () => api.interrupt())),
  );
  dialog.dataset.question = question.id;
  dialog.querySelector("main").style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;

  // All show the same place.
  dialog.addEventListener("mousemove", event => {
    const view = event.target.closest(".view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    const place = `${100 * (event.clientX - box.left) / box.width}% ${100 * (event.clientY - box.top) / box.height}%`;
    for (const img of dialog.querySelectorAll("img")) img.style.transformOrigin = place;
  });
  const keys = event => {
    event.stopPropagation(); // the graph below has keys of its own
    if (event.key === "Escape") event.preventDefault(); // it would hide a question that still waits
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[1-9]$/.test(event.key)) pick(Number(event.key) - 1);
    else if (event.key.toLowerCase() === "z") zoom();
    else if (question.rank && event.key === "Backspace") again();
    else if (question.rank && event.key === "Enter") {
      event.preventDefault(); // and do not click what has the focus
      done();
    }
  };
  addEventListener("keydown", keys, true);
  dialog.addEventListener("cancel", event => event.preventDefault());
  const open = () => {
    dialog.showModal();
    dialog.focus(); // a candidate that has the focus would be chosen by Enter
  };
  dialog.addEventListener("close", () => dialog.isConnected && open()); // a browser may close it all the same
  draw();
  tick();
  document.body.append(dialog);
  open();
  const timer = setInterval(tick, 500);
  return {
    id: question.id,
    remove() {
      clearInterval(timer);
      removeEventListener("keydown", keys, true);
      dialog.remove();
    },
  };
}

app.registerExtension({
  name: "fluxir.choose",
  setup() {
    api.addEventListener("fluxir.question", look);
    api.addEventListener("reconnected", look);
    api.addEventListener("status", () => api.clientId !== announced && look());
    look();
  },
});
