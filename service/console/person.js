/* One person: what is kept of them, and what can be done about it. */

import * as api from "./api.js";
import { button, element, labelledBy, problemNotice, table } from "./dom.js";
import { confirmErasure, openDialog } from "./dialog.js";
import { download, receipt } from "./receipt.js";
import { count, moment, percent, plain } from "./words.js";

/** A window on the person. changed: called when it closes after something has been changed. */
export async function personDialog(gallery, id, changed) {
  const body = element("div", { class: "person" });
  const told = element("div", { role: "status" }, element("p", { class: "waiting" }, "Looking"));
  let altered = false;
  const dialog = openDialog({
    title: id,
    body: [body, told],
    actions: [
      button("Delete person", erase, { class: "quiet danger" }),
      button("Export", () =>
        after(async () => download(await api.exportPerson(gallery, id), "person.json")),
      ),
      button("Close", () => dialog.close()),
    ],
    closed: () => altered && changed(),
  });

  /** Does something and shows the person anew; what goes wrong is told. */
  async function after(work, done) {
    try {
      await work();
      altered ||= Boolean(done);
      await show();
      told.replaceChildren(done ?? "");
    } catch (error) {
      told.replaceChildren(problemNotice(error));
    }
  }

  async function show() {
    const [person, faces] = await Promise.all([api.person(gallery, id), api.faces(gallery, id)]);
    dialog.querySelector("h2").textContent = person.name ?? person.id;
    body.replaceChildren(factsOf(gallery, person), renaming(person), ...facesOf(person, faces));
  }

  function renaming(person) {
    const name = element("input", {
      type: "text",
      maxlength: 128,
      value: person.name,
      autocomplete: "off",
    });
    const save = () => api.changePerson(gallery, id, { name: name.value.trim() || null });
    return element(
      "form",
      {
        class: "rename",
        submit: (event) => {
          event.preventDefault();
          after(save, "The name is changed.");
        },
      },
      labelledBy("Name", name),
      element("button", {}, "Rename"),
    );
  }

  function facesOf(person, faces) {
    const erasing = (face) =>
      button("Delete", () => eraseFace(face), {
        class: "quiet danger",
        "aria-label": `Delete face ${face.id}`,
      });
    const rows = faces.map((face) => [
      element("code", {}, face.id),
      moment(face.created),
      face.quality ? percent(face.quality.score) : "imported",
      erasing(face),
    ]);
    const title = element(
      "h3",
      {},
      `${count(person.faces, "face")}${person.faces > faces.length ? `, of which the first ${faces.length}` : ""}`,
    );
    return rows.length
      ? [
          title,
          table(
            "Faces",
            ["Face", "Enrolled", "Quality", element("span", { class: "unseen" }, "Action")],
            rows,
          ),
        ]
      : [title];
  }

  function eraseFace(face) {
    confirmErasure({
      title: "Delete this face?",
      text: `Face ${face.id} is erased. It cannot be undone.`,
      action: "Delete face",
      erase: async () => receipt(await api.deleteFace(gallery, id, face.id)),
      closed: (erased) => erased && after(async () => {}, "The face is deleted."),
    });
  }

  function erase() {
    confirmErasure({
      title: `Delete ${dialog.querySelector("h2").textContent}?`,
      text: `The person ${id} and all their faces are erased from ${gallery}. It cannot be undone.`,
      action: "Delete person",
      erase: async () => receipt(await api.deletePerson(gallery, id)),
      closed: (erased) => {
        if (erased) {
          altered = true;
          dialog.close();
        }
      },
    });
  }

  await after(async () => {});
}

function factsOf(gallery, { id, created, updated, metadata, consent, expires }) {
  const facts = [
    ["Id", element("code", {}, id)],
    ["Gallery", gallery],
    ["Enrolled", moment(created)],
    ["Changed", moment(updated)],
  ];
  if (expires) facts.push(["Expires", moment(expires)]);
  if (consent)
    facts.push([
      "Kept by",
      `${[plain(consent.basis), consent.reference].filter(Boolean).join(", ")}, since ${moment(consent.time)}`,
    ]);
  if (Object.keys(metadata).length)
    facts.push(["Metadata", element("code", {}, JSON.stringify(metadata))]);
  return element(
    "dl",
    {},
    facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
}
