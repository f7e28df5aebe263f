/* What does a face show? Its expression and attributes, each with how sure that is. */

import * as api from "./api.js";
import { element, labelledBy, sentence, shape, working } from "./dom.js";
import { openPhotograph } from "./photograph.js";
import { picker } from "./picker.js";
import { count, percent, plain } from "./words.js";

const FEATURES = ["expression", "attributes"];
const VARIABLES = { expression: "MIEN_EXPRESSION", attributes: "MIEN_ATTRIBUTES" };

/** The view. `served` tells it the tasks that are served: what is not among them is switched off. */
export function analyzeView() {
  const unreliable = element("input", { type: "checkbox", change: () => again() });
  const option = labelledBy("Also what cannot be told well", unreliable);
  option.classList.add("check");
  const off = element("div", {});
  const stage = element("div", { class: "stage" });
  const result = element("div", { class: "result", role: "status" });
  const place = picker({ what: "a photograph", stage, taken: ([file]) => look(file) });
  const controls = element(
    "div",
    {},
    element("div", { class: "controls" }, option),
    element("div", { class: "columns" }, place, result),
  );
  let features = FEATURES;
  let last = null;
  let running = new AbortController();

  function again() {
    if (last) look(last);
  }

  async function look(file) {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    last = file;
    const photograph = await openPhotograph(file);
    if (signal.aborted) return;
    stage.replaceChildren(photograph.node);
    result.replaceChildren(element("p", { class: "waiting" }, "Looking"));
    await working(result, async () => {
      const fields = { features: features.join(",") };
      if (features.includes("attributes")) fields.include_unreliable = unreliable.checked;
      const [image] = (await api.analyze(file, fields, signal)).images;
      photograph.mark(
        image.faces.map(({ box }, i) => ({ box, text: String(i + 1) })),
        image,
      );
      result.replaceChildren(...told(image, photograph));
    });
  }

  const node = element("div", {}, off, controls);
  node.served = (tasks) => {
    features = FEATURES.filter((feature) => tasks.includes(feature));
    option.hidden = !features.includes("attributes");
    controls.hidden = !features.length;
    off.replaceChildren(...FEATURES.filter((one) => !features.includes(one)).map(offNotice));
  };
  return node;
}

function offNotice(feature) {
  return element(
    "div",
    { class: "notice" },
    element("strong", {}, `${plain(feature)} is switched off`),
    element(
      "p",
      {},
      `The operator of this service set ${VARIABLES[feature]}=off: its network is not loaded, ` +
        "and nobody can ask for it.",
    ),
  );
}

function told(image, photograph) {
  if (!image.faces.length) return [element("p", {}, "No face was found in this photograph.")];
  return [
    element("h3", {}, count(image.faces.length, "face")),
    element(
      "ol",
      { class: "cards" },
      image.faces.map((face, i) => card(face, i, photograph.face(face.box, image.width))),
    ),
    element(
      "p",
      { class: "fine" },
      "This names what a face shows in one picture. It is not what anybody feels or is.",
    ),
  ];
}

function card(face, i, portrait) {
  const { expression, attributes } = face;
  return element(
    "li",
    { class: "card" },
    element(
      "div",
      { class: "head" },
      portrait,
      element(
        "div",
        {},
        element("p", { class: "name" }, `Face ${i + 1}`),
        expression &&
          element("p", {}, `${plain(expression.label)}, ${percent(expression.confidence)}`),
      ),
    ),
    face.refused.map(({ problem }) =>
      element(
        "div",
        { class: "notice" },
        element("strong", {}, problem.title),
        element("p", {}, sentence(problem.detail)),
      ),
    ),
    expression && bars("Expression", scoresOf(expression)),
    attributes && bars("Attributes that are there", attributesOf(attributes, true)),
    attributes && folded("Attributes that are not", attributesOf(attributes, false)),
  );
}

const scoresOf = ({ scores }) =>
  Object.entries(scores)
    .sort(([, a], [, b]) => b - a)
    .map(([name, score]) => ({ name, score }));

function attributesOf(attributes, present) {
  return Object.entries(attributes)
    .filter(([, one]) => one.present === present)
    .sort(([, a], [, b]) => b.confidence - a.confidence)
    .map(([name, one]) => ({ name, score: one.confidence, doubtful: one.reliable === false }));
}

function bars(title, rows) {
  if (!rows.length) return null;
  return element("div", { class: "bars" }, element("h4", {}, title), list(rows));
}

function folded(title, rows) {
  if (!rows.length) return null;
  return element(
    "details",
    { class: "bars" },
    element("summary", {}, `${title} (${rows.length})`),
    list(rows),
  );
}

function list(rows) {
  return element(
    "ul",
    {},
    rows.map(({ name, score, doubtful }) =>
      element(
        "li",
        {},
        element(
          "span",
          { class: "who" },
          plain(name),
          doubtful && element("small", {}, "cannot be told well"),
        ),
        bar(score),
        element("span", { class: "value" }, percent(score)),
      ),
    ),
  );
}

function bar(share) {
  return shape(
    "svg",
    { class: "scale", viewBox: "0 0 200 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { class: "ground", y: 3, width: 200, height: 6 }),
    shape("rect", { class: "filled", y: 3, width: 200 * share, height: 6 }),
  );
}
