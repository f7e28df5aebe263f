/* Who is this? A photograph, and for each face the people of a gallery most like it. */

import * as api from "./api.js";
import { choice, element, labelledBy } from "./dom.js";
import { card, cards, facesView } from "./faces.js";
import { chosenGallery, galleryField, whenGalleriesChange } from "./galleries.js";
import { scale } from "./similarity.js";
import { count, decisionMeaning, decisionWords, similarityWords, thresholdWords } from "./words.js";

const CANDIDATES = 3;
const RATES = [
  ["0.1", "once in 10 searches"],
  ["0.01", "once in 100 searches"],
  ["0.001", "once in 1,000 searches"],
  ["0.0001", "once in 10,000 searches"],
];

/** The view. */
export function identifyView() {
  const rate = choice(RATES, "0.01", () => faces.again());
  let asked = null;
  const faces = facesView({
    ask(file, signal) {
      asked = chosenGallery().name;
      const fields = { gallery: asked, top_k: CANDIDATES, target_fpir: rate.value };
      return api.identify(file, fields, signal);
    },
    markOf,
    told,
  });
  whenGalleriesChange(() => {
    if (asked !== null && asked !== chosenGallery().name) faces.again();
  });
  return element(
    "div",
    {},
    element(
      "div",
      { class: "controls" },
      galleryField(),
      labelledBy("A stranger may match anyone", rate),
    ),
    faces.node,
  );
}

const nameOf = (candidate) => candidate.name ?? candidate.person_id;

function markOf(face, i) {
  const best = face.candidates[0];
  const known = best && face.decision !== "no_match";
  const name = known ? `${nameOf(best)}${face.decision === "uncertain" ? "?" : ""}` : "unknown";
  return { box: face.box, kind: face.decision, text: `${i + 1}  ${name}` };
}

function told(answer, faces, portraits) {
  return [
    element("h3", {}, `${count(faces.length, "face")} in ${answer.gallery}`),
    cards(faces.map((face, i) => faceCard(face, i, answer.threshold, portraits[i]))),
    element("p", { class: "fine" }, thresholdWords(answer.threshold)),
  ];
}

function faceCard(face, i, threshold, portrait) {
  const { candidates, decision } = face;
  const [best] = candidates;
  const named = best && decision !== "no_match";
  const isNamesake = (one) =>
    candidates.some((other) => other !== one && nameOf(other) === nameOf(one));
  const listed = candidates.map((one) => candidate(one, threshold, isNamesake(one)));
  return card(
    portrait,
    named ? nameOf(best) : `Face ${i + 1}: nobody in this gallery`,
    element("span", { class: `decision ${decision}` }, decisionWords(decision)),
    best
      ? element("ul", { class: "candidates" }, listed)
      : element("p", {}, "Nobody is enrolled there to compare with."),
    best &&
      element(
        "p",
        { class: "fine" },
        decisionMeaning(decision, `${nameOf(best)} is the most like it,`),
      ),
  );
}

function candidate(one, threshold, isNamesake) {
  return element(
    "li",
    {},
    element(
      "span",
      { class: "who" },
      nameOf(one),
      isNamesake && element("small", {}, one.person_id),
    ),
    scale(one.similarity, threshold.similarity),
    element("span", { class: "value" }, similarityWords(one.similarity)),
  );
}
