/* Who is this? A photograph, and for each face the people of a gallery most like it. */

import * as api from "./api.js";
import { choice, element, labelledBy, working } from "./dom.js";
import { chosenGallery, galleryField, whenGalleriesChange } from "./galleries.js";
import { openPhotograph } from "./photograph.js";
import { picker } from "./picker.js";
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
  const rate = choice(RATES, "0.01", () => again());
  const stage = element("div", { class: "stage" });
  const result = element("div", { class: "result", role: "status" });
  let last = null;
  let running = new AbortController();
  whenGalleriesChange(() => {
    if (last && last.gallery !== chosenGallery().name) again();
  });

  function again() {
    if (last) look(last.file);
  }

  async function look(file) {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const gallery = chosenGallery().name;
    last = { file, gallery };
    const photograph = await openPhotograph(file);
    if (signal.aborted) return;
    stage.replaceChildren(photograph.node);
    result.replaceChildren(element("p", { class: "waiting" }, "Looking"));
    await working(result, async () => {
      const fields = { gallery, top_k: CANDIDATES, target_fpir: rate.value };
      const answer = await api.identify(file, fields, signal);
      const [image] = answer.images;
      photograph.mark(image.faces.map(markOf), image);
      result.replaceChildren(...told(answer, image, photograph));
    });
  }

  return element(
    "div",
    {},
    element(
      "div",
      { class: "controls" },
      galleryField(),
      labelledBy("A stranger may match anyone", rate),
    ),
    element(
      "div",
      { class: "columns" },
      picker({ what: "a photograph", stage, taken: ([file]) => look(file) }),
      result,
    ),
  );
}

const nameOf = (candidate) => candidate.name ?? candidate.person_id;

function markOf(face, i) {
  const best = face.candidates[0];
  const known = best && face.decision !== "no_match";
  const name = known ? `${nameOf(best)}${face.decision === "uncertain" ? "?" : ""}` : "unknown";
  return { box: face.box, kind: face.decision, text: `${i + 1}  ${name}` };
}

function told(answer, image, photograph) {
  if (!image.faces.length) {
    return [
      element(
        "div",
        { class: "notice" },
        element("strong", {}, "No face"),
        element("p", {}, "No face was found in this photograph."),
      ),
    ];
  }
  const cards = image.faces.map((face, i) =>
    card(face, i, answer, photograph.face(face.box, image.width)),
  );
  return [
    element("h3", {}, `${count(image.faces.length, "face")} in ${answer.gallery}`),
    element("ol", { class: "cards" }, cards),
    element("p", { class: "fine" }, thresholdWords(answer.threshold)),
  ];
}

function card(face, i, answer, portrait) {
  const [best] = face.candidates;
  const named = best && face.decision !== "no_match";
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
        element(
          "p",
          { class: "name" },
          named ? nameOf(best) : `Face ${i + 1}: nobody in this gallery`,
        ),
        element(
          "p",
          {},
          element("span", { class: `decision ${face.decision}` }, decisionWords(face.decision)),
        ),
      ),
    ),
    best
      ? element(
          "ul",
          { class: "candidates" },
          face.candidates.map((one) =>
            candidate(
              one,
              answer.threshold,
              face.candidates.some((other) => other !== one && nameOf(other) === nameOf(one)),
            ),
          ),
        )
      : element("p", {}, "Nobody is enrolled there to compare with."),
    best &&
      element(
        "p",
        { class: "fine" },
        decisionMeaning(face.decision, `${nameOf(best)} is the most like it,`),
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
