/* What does a face show? Its expression and attributes, each with how sure that is. */

import * as api from "./api.js";
import { element, labelledBy, sentence, shape } from "./dom.js";
import { card, cards, facesView } from "./faces.js";
import { count, percent, plain } from "./words.js";

const FEATURES = ["expression", "attributes"];
const VARIABLES = { expression: "MIEN_EXPRESSION", attributes: "MIEN_ATTRIBUTES" };

/** The view. `served` tells it the tasks that are served: what is not among them is switched off. */
export function analyzeView() {
  let features = FEATURES;
  const unreliable = element("input", { type: "checkbox", change: () => faces.again() });
  const option = labelledBy("Also what cannot be told well", unreliable);
  option.classList.add("check");
  const off = element("div", {});
  const faces = facesView({
    ask(file, signal) {
      const fields = { features: features.join(",") };
      if (features.includes("attributes")) fields.include_unreliable = unreliable.checked;
      return api.analyze(file, fields, signal);
    },
    markOf: ({ box }, i) => ({ box, text: String(i + 1) }),
    told,
  });
  const controls = element("div", {}, element("div", { class: "controls" }, option), faces.node);
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

function told(answer, faces, portraits) {
  return [
    element("h3", {}, count(faces.length, "face")),
    cards(faces.map((face, i) => faceCard(face, i, portraits[i]))),
    element(
      "p",
      { class: "fine" },
      "This names what a face shows in one picture. It is not what anybody feels or is.",
    ),
  ];
}

function faceCard({ expression, attributes, refused }, i, portrait) {
  return card(
    portrait,
    `Face ${i + 1}`,
    expression && `${plain(expression.label)}, ${percent(expression.confidence)}`,
    refused.map(({ problem }) =>
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
