/* Who is enrolled: galleries and their people, page by page or by search. */

import * as api from "./api.js";
import { button, element, labelledBy, problemNotice, table, working } from "./dom.js";
import { confirmErasure, openDialog } from "./dialog.js";
import {
  chooseGallery,
  chosenGallery,
  galleryField,
  refreshGalleries,
  whenGalleriesChange,
} from "./galleries.js";
import { personDialog } from "./person.js";
import { receipt } from "./receipt.js";
import { count, moment, whole } from "./words.js";

const PAGE = 20;
const SEARCH_PAGE = 1000;
const MOST_HITS = 50;

/** The view. */
export function peopleView() {
  const search = element("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const facts = element("p", { class: "fine" });
  const list = element("div", { class: "list" });
  const said = element("p", { class: "fine", role: "status" });
  const before = button("Back", () => turn(at - 1), { disabled: true });
  const after = button("Next", () => turn(at + 1), { disabled: true });
  let cursors = [null]; // of the pages up to the next one
  let at = 0;
  let running = new AbortController();
  const node = element(
    "div",
    {},
    element(
      "div",
      { class: "controls" },
      galleryField(),
      element(
        "div",
        { class: "row" },
        button("New gallery", newGallery),
        button("Delete gallery", eraseGallery, { class: "quiet danger" }),
      ),
      element(
        "form",
        {
          class: "search",
          role: "search",
          submit: (event) => {
            event.preventDefault();
            begin();
          },
        },
        labelledBy("Name or id", search),
        element("button", {}, "Search"),
      ),
    ),
    element("div", { class: "row apart" }, facts, said),
    list,
    element("div", { class: "row end pages" }, before, after),
  );
  node.shown = begin;
  whenGalleriesChange(() => {
    if (node.isConnected && !node.closest("[hidden]")) begin();
  });

  function begin() {
    cursors = [null];
    const { name, persons, faces, retention_days: days } = chosenGallery();
    facts.textContent =
      `${name}: ${count(persons, "person", "people")}, ${count(faces, "face")}` +
      `${days ? `, kept for ${count(days, "day")}` : ""}`;
    const text = search.value.trim();
    return text ? find(text) : turn(0);
  }

  function started() {
    running.abort();
    running = new AbortController();
    before.disabled = after.disabled = true;
    said.textContent = "";
    return running.signal;
  }

  async function turn(page) {
    const signal = started();
    const work = async () => {
      const asked = { cursor: cursors[page], limit: PAGE, signal };
      const { items, next } = await api.persons(chosenGallery().name, asked);
      at = page;
      cursors = [...cursors.slice(0, page + 1), next];
      before.disabled = page === 0;
      after.disabled = !next;
      said.textContent = items.length ? `Page ${page + 1}` : "Nobody is enrolled in this gallery.";
      show(items);
    };
    await working(list, work, signal);
  }

  /** Walks all pages, since the service does not search in names. */
  async function find(text) {
    const signal = started();
    const gallery = chosenGallery().name;
    const found = new Map();
    const add = (people) => people.forEach((one) => found.set(one.id, one));
    const work = async () => {
      list.replaceChildren();
      add(await withId(gallery, text, signal));
      let cursor = null;
      let seen = 0;
      do {
        const page = await api.persons(gallery, { cursor, limit: SEARCH_PAGE, signal });
        add(page.items.filter((one) => isLike(one, text)));
        seen += page.items.length;
        cursor = page.next;
        said.textContent = `${whole(found.size)} found among ${count(seen, "person", "people")}`;
      } while (cursor && found.size < MOST_HITS);
      if (cursor)
        said.textContent += ", and not all were looked through: search for more of the name";
      show([...found.values()].slice(0, MOST_HITS));
    };
    await working(list, work, signal);
  }

  function show(people) {
    const rows = people.map((one) => [
      button(one.name ?? one.id, () => personDialog(chosenGallery().name, one.id, changed), {
        class: "link",
      }),
      element("code", {}, one.id),
      whole(one.faces),
      moment(one.updated),
    ]);
    list.replaceChildren(
      ...(rows.length ? [table("People", ["Name", "Id", "Faces", "Changed"], rows)] : []),
    );
  }

  async function changed() {
    await refreshGalleries().catch((error) => list.replaceChildren(problemNotice(error)));
  }

  function newGallery() {
    const field = element("input", {
      type: "text",
      required: true,
      pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,127}",
    });
    const days = element("input", { type: "number", min: 1, max: 36_500 });
    const consent = element("input", { type: "checkbox" });
    const asks = labelledBy("Enrol nobody without a record of consent", consent);
    asks.classList.add("check");
    const told = element("div", {});
    const create = async () => {
      try {
        const { name } = await api.createGallery(
          fieldsOf(field.value, days.value, consent.checked),
        );
        dialog.close();
        chooseGallery(name);
        await changed();
      } catch (error) {
        told.replaceChildren(problemNotice(error));
      }
    };
    const dialog = openDialog({
      title: "New gallery",
      body: element(
        "form",
        {
          id: "gallery-form",
          class: "form-part",
          submit: (event) => {
            event.preventDefault();
            create();
          },
        },
        labelledBy("Name", field, "Letters, digits, dot, hyphen and underscore."),
        labelledBy(
          "Days after which people are erased",
          days,
          "Empty: they are kept until somebody deletes them.",
        ),
        asks,
        told,
      ),
      actions: [
        button("Cancel", () => dialog.close()),
        element("button", { class: "main", form: "gallery-form" }, "Create"),
      ],
    });
    field.focus();
  }

  function eraseGallery() {
    const { name, persons } = chosenGallery();
    confirmErasure({
      title: `Delete ${name}?`,
      text: `${count(persons, "person", "people")} and all their faces are erased. It cannot be undone.`,
      action: "Delete gallery",
      typed: name,
      erase: async () => receipt(await api.deleteGallery(name)),
      closed: (erased) => erased && changed(),
    });
  }
  return node;
}

async function withId(gallery, id, signal) {
  try {
    return [await api.person(gallery, id, signal)];
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

function fieldsOf(name, days, consent) {
  return {
    name,
    ...(days && { retention_days: Number(days) }),
    ...(consent && { requires_consent: true }),
  };
}

function isLike({ id, name }, text) {
  const sought = text.toLocaleLowerCase();
  return [id, name ?? ""].some((own) => own.toLocaleLowerCase().includes(sought));
}
