/* The galleries, and the one that is chosen in every view. */

import * as api from "./api.js";
import { choice, labelledBy } from "./dom.js";

const DEFAULT = "default";
const changed = new EventTarget();
const known = { list: [{ name: DEFAULT, persons: 0, faces: 0 }], chosen: DEFAULT };

/** The chosen gallery's record; the name alone until the list has come. */
export const chosenGallery = () =>
  known.list.find(({ name }) => name === known.chosen) ?? {
    name: known.chosen,
    persons: 0,
    faces: 0,
  };

/** Chooses a gallery, for every view. */
export function chooseGallery(name) {
  known.chosen = name;
  changed.dispatchEvent(new Event("change"));
}

/** Asks the service anew which galleries there are. */
export async function refreshGalleries() {
  known.list = await api.galleries();
  const names = known.list.map(({ name }) => name);
  if (!names.includes(known.chosen))
    known.chosen = names.includes(DEFAULT) ? DEFAULT : (names[0] ?? DEFAULT);
  changed.dispatchEvent(new Event("change"));
}

/** Calls back whenever the choice or the list changes. */
export const whenGalleriesChange = (told) => changed.addEventListener("change", told);

/** A list to choose the gallery from, the same in all views. */
export function galleryField() {
  const select = choice([[DEFAULT, DEFAULT]], DEFAULT, () => chooseGallery(select.value));
  let listed = null;
  const fill = () => {
    if (listed !== known.list) {
      // not at each choice: that would disturb who is typing a name
      select.replaceChildren(...known.list.map(({ name }) => new Option(name, name)));
      listed = known.list;
    }
    select.value = known.chosen;
  };
  whenGalleriesChange(fill);
  fill();
  return labelledBy("Gallery", select);
}
