/* One photograph and its faces: marked on it, and a card for each beside it. */

import { element, working } from "./dom.js";
import { openPhotograph } from "./photograph.js";
import { picker } from "./picker.js";

/** A place for a photograph, beside it what is told of its faces. ask: the service's answer for a
    file; markOf: what is drawn at a face; told: what is told where there are faces.

    node: the place; again: asks anew for the photograph that is there. */
export function facesView({ ask, markOf, told }) {
  const stage = element("div", { class: "stage" });
  const result = element("div", { class: "result", role: "status" });
  let last = null;
  let running = new AbortController();

  async function look(file) {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    last = file;
    const photograph = await openPhotograph(file);
    if (signal.aborted) return;
    stage.replaceChildren(photograph.node);
    result.replaceChildren(element("p", { class: "waiting" }, "Looking"));
    const work = async () => {
      const answer = await ask(file, signal);
      const [image] = answer.images;
      photograph.mark(image.faces.map(markOf), image);
      const portraits = image.faces.map(({ box }) => photograph.face(box, image.width));
      result.replaceChildren(
        ...(image.faces.length ? told(answer, image.faces, portraits) : [noFace()]),
      );
    };
    await working(result, work, signal);
  }

  const place = picker({ what: "a photograph", stage, taken: ([file]) => look(file) });
  return {
    node: element("div", { class: "columns" }, place, result),
    again: () => last && look(last),
  };
}

function noFace() {
  return element(
    "div",
    { class: "notice" },
    element("strong", {}, "No face"),
    element("p", {}, "No face was found in this photograph."),
  );
}

/** The cards of the faces, in a list. */
export const cards = (listed) => element("ol", { class: "cards" }, listed);

/** A face: its picture, what it is called, a line under that, and whatever else is told of it. */
export function card(portrait, name, said, ...rest) {
  return element(
    "li",
    { class: "card" },
    element(
      "div",
      { class: "head" },
      portrait,
      element("div", {}, element("p", { class: "name" }, name), said && element("p", {}, said)),
    ),
    rest,
  );
}
