/* This is who they are: a person with photographs of their face. */

import * as api from "./api.js";
import { consentFields } from "./consent.js";
import { button, choice, element, labelledBy, problemNotice, sentence, working } from "./dom.js";
import {
  chooseGallery,
  chosenGallery,
  galleryField,
  refreshGalleries,
  whenGalleriesChange,
} from "./galleries.js";
import { openPhotograph } from "./photograph.js";
import { picker } from "./picker.js";
import { count, figure, percent, plain } from "./words.js";

const QUALITY = [
  ["off", "Any"],
  ["standard", "Standard"],
  ["strict", "Strict"],
];
const FACES = [
  ["only", "Refuse it"],
  ["largest", "Take the largest"],
];

/** The view. */
export function enrolView() {
  const name = element("input", { type: "text", maxlength: 128, autocomplete: "off" });
  const id = element("input", {
    type: "text",
    maxlength: 128,
    autocomplete: "off",
    spellcheck: "false",
  });
  const quality = choice(QUALITY, "standard", null);
  const face = choice(FACES, "only", null);
  const consent = consentFields();
  const grid = element("ul", { class: "shots" });
  const result = element("div", { class: "result", role: "status" });
  const submit = element("button", { class: "main", disabled: true }, "Enrol");
  let shots = [];
  let sending = false;
  let attempt = null; // names what is sent, for as long as nobody knows whether it arrived

  /** The photographs that have had no answer. */
  const waiting = () => shots.filter((shot) => !shot.done);

  /** Takes away the others, and what was said of them. */
  function putAway() {
    shots = waiting();
    result.replaceChildren();
  }

  async function add(files) {
    if (waiting().length < shots.length) putAway();
    attempt = null;
    for (const file of files) shots.push(await shotOf(file, remove));
    show();
  }

  function remove(shot) {
    attempt = null;
    shots = shots.filter((one) => one !== shot);
    show();
  }

  function show() {
    grid.replaceChildren(...shots.map((shot) => shot.node));
    const left = waiting().length;
    submit.disabled = sending || !left;
    submit.textContent = left ? `Enrol ${count(left, "photograph")}` : "Enrol";
  }

  async function send() {
    const sent = waiting();
    const fields = {
      gallery: chosenGallery().name,
      name: name.value.trim(),
      person_id: id.value.trim(),
      quality: quality.value,
      face: face.value,
      consent: consent.value(),
    };
    submit.disabled = sending = true;
    attempt ??= newAttempt();
    await working(result, async () => {
      try {
        const answer = await api.enrol(
          sent.map(({ file }) => file),
          fields,
          attempt,
        );
        for (const { image, ...rest } of answer.enrolled) sent[image].enrolled(rest);
        refuse(sent, answer.refused);
        result.replaceChildren(enrolledNotice(answer, () => another(answer)));
        name.value = id.value = ""; // the next photographs may be of somebody else
        attempt = null;
      } catch (error) {
        if (error.status) attempt = null; // it arrived
        refuse(sent, refusedBy(error, sent));
        result.replaceChildren(problemNotice(error));
      }
    });
    sending = false;
    show();
    result.scrollIntoView({ block: "nearest" });
    await refreshGalleries().catch(() => {}); // the numbers of people are People's to tell
  }

  /** More photographs of a person who is enrolled. */
  function another({ gallery, person }) {
    chooseGallery(gallery);
    putAway();
    show();
    name.value = person.name ?? "";
    id.value = person.id;
    place.querySelector("input").focus();
  }

  const form = element(
    "form",
    {
      class: "form",
      submit: (event) => {
        event.preventDefault();
        send();
      },
    },
    galleryField(),
    labelledBy("Name", name),
    labelledBy(
      "Id",
      id,
      "One is made where none is given. An id that is there already gets more faces.",
    ),
    consent.node,
    labelledBy("Quality asked for", quality),
    labelledBy("Several faces in a photograph", face),
    submit,
  );
  form.addEventListener("input", () => {
    attempt = null;
  });
  whenGalleriesChange(() => consent.require(Boolean(chosenGallery().requires_consent)));
  const place = picker({ what: "photographs of one person", several: true, taken: add });
  return element(
    "div",
    { class: "columns form-first" },
    form,
    element("div", {}, result, place, grid),
  );
}

/** A text that no other enrolment has. crypto.randomUUID is for https alone. */
const newAttempt = () =>
  [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");

/** What an error says of each photograph; a call's only photograph has the error itself. */
function refusedBy(error, sent) {
  if (error.fields?.refused) return error.fields.refused;
  return sent.length === 1 && error.status === 422 ? [{ image: 0, problem: error.fields }] : [];
}

function refuse(shots, refused) {
  for (const { image, problem } of refused) shots[image].refused(problem);
}

/** A photograph to be enrolled, with what became of it. */
async function shotOf(file, remove) {
  const photograph = await openPhotograph(file);
  const said = element("div", { class: "said" }, element("p", { class: "fine" }, file.name));
  const drop = button("Remove", () => remove(shot), {
    class: "quiet",
    "aria-label": `Remove ${file.name}`,
  });
  const shot = {
    file,
    done: false,
    node: element("li", { class: "card" }, photograph.node, said, drop),
    enrolled({ box, quality }) {
      shot.done = true;
      photograph.mark([{ box, kind: "match" }]);
      said.replaceChildren(
        element("p", {}, element("span", { class: "decision match" }, "Enrolled")),
        element("p", { class: "fine" }, `Quality ${percent(quality.score)}`),
      );
      drop.remove();
    },
    refused(problem) {
      shot.done = true;
      photograph.mark((problem.boxes ?? []).map((box) => ({ box, kind: "no_match" })));
      said.replaceChildren(
        element("p", {}, element("span", { class: "decision refused" }, problem.title)),
        reason(problem),
      );
      drop.remove();
    },
  };
  return shot;
}

/** Why, with the values where there are any. */
function reason(problem) {
  if (!problem.failed) return element("p", {}, sentence(problem.detail));
  return element(
    "ul",
    { class: "reasons" },
    problem.failed.map((one) =>
      element(
        "li",
        {},
        `${plain(one.reason ?? one.component)}: ${figure(one.value)}, where the limit is ${figure(one.limit)}`,
      ),
    ),
  );
}

function enrolledNotice({ gallery, person, enrolled, refused, warnings = [] }, another) {
  const whose = person.name ?? person.id;
  return element(
    "div",
    { class: "notice good" },
    element("strong", {}, `${count(enrolled.length, "face")} of ${whose} enrolled`),
    element(
      "p",
      {},
      `${whose} has ${count(person.faces, "face")} in ${gallery} now` +
        `${refused.length ? `; ${count(refused.length, "photograph was", "photographs were")} refused` : ""}.`,
    ),
    ...warnings
      .filter(({ type }) => type !== "new-person") // as this page is made to do
      .map(({ detail }) => element("p", {}, detail)),
    element("p", { class: "fine" }, `Id ${person.id}`),
    button(`More of ${whose}`, another),
  );
}
