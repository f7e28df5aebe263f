/* Are these two the same person? Two photographs, their similarity, and what it is worth. */

import * as api from "./api.js";
import { choice, element, labelledBy, working } from "./dom.js";
import { openPhotograph } from "./photograph.js";
import { picker } from "./picker.js";
import { curves, curveWords } from "./similarity.js";
import { decisionMeaning, decisionWords, similarityWords, thresholdWords } from "./words.js";

const RATES = [
  ["0.01", "once in 100 comparisons"],
  ["0.001", "once in 1,000 comparisons"],
  ["0.0001", "once in 10,000 comparisons"],
  ["0.00001", "once in 100,000 comparisons"],
];
const SIDES = ["First photograph", "Second photograph"];

/** The view. */
export function verifyView() {
  const rate = choice(RATES, "0.001", () => compare());
  const result = element("div", { class: "result", role: "status" });
  const sides = SIDES.map((title) => side(title, () => compare()));
  let running = new AbortController();

  async function compare() {
    const [a, b] = sides.map((one) => one.chosen);
    running.abort();
    if (!a || !b) return;
    running = new AbortController();
    const { signal } = running;
    result.replaceChildren(element("p", { class: "waiting" }, "Comparing"));
    for (const { photograph } of [a, b]) photograph.mark([]);
    const work = async () => {
      const answer = await api.verify(a.file, b.file, { target_fmr: rate.value }, signal);
      const calibration = await api.calibration(answer.model, signal);
      [a, b].forEach(({ photograph }, i) =>
        photograph.mark([{ box: answer.faces[i].box, kind: answer.decision }]),
      );
      result.replaceChildren(...told(answer, calibration));
    };
    await working(result, work, signal);
  }

  return element(
    "div",
    {},
    element("div", { class: "controls" }, labelledBy("Two people may be taken for one", rate)),
    element(
      "div",
      { class: "pair" },
      sides.map((one) => one.node),
    ),
    result,
  );
}

/** One of the two: `chosen` has its file and its photograph, null until there is one. */
function side(title, changed) {
  const stage = element("div", { class: "stage" });
  const own = {
    chosen: null,
    node: element(
      "section",
      { "aria-label": title },
      element("h3", {}, title),
      picker({ what: "a photograph", stage, taken: ([file]) => take(file) }),
    ),
  };
  let newest = null;
  async function take(file) {
    newest = file;
    const photograph = await openPhotograph(file);
    if (file !== newest) return; // a smaller one was chosen later, and read sooner
    own.chosen = { file, photograph };
    stage.replaceChildren(photograph.node);
    changed();
  }
  return own;
}

function told(answer, calibration) {
  const at = answer.threshold.similarity;
  return [
    element(
      "div",
      { class: "verdict" },
      element("p", { class: "big" }, similarityWords(answer.similarity)),
      element(
        "div",
        {},
        element(
          "p",
          {},
          element("span", { class: `decision ${answer.decision}` }, decisionWords(answer.decision)),
        ),
        element("p", {}, decisionMeaning(answer.decision, "The similarity is")),
      ),
    ),
    calibration.curve &&
      element(
        "figure",
        { class: "plot" },
        curves(calibration, answer.similarity, at),
        element(
          "figcaption",
          {},
          element("span", { class: "key-strangers" }, "pairs of different people"),
          element("span", { class: "key-mated" }, "pairs of one person"),
        ),
      ),
    calibration.curve && element("p", {}, curveWords(calibration, answer.similarity)),
    element("p", { class: "fine" }, thresholdWords(answer.threshold)),
  ].filter(Boolean);
}
