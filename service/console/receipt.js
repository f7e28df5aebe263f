/* What the service certifies of an erasure. */

import { button, element } from "./dom.js";
import { plain } from "./words.js";

/** The receipt, to be read and kept; null where the service gave none. */
export function receipt(given) {
  if (!given) return null;
  const facts = Object.entries(given)
    .filter(([, value]) => value !== null)
    .map(([name, value]) =>
      element(
        "div",
        {},
        element("dt", {}, plain(name)),
        element("dd", {}, [value].flat().join(", ")),
      ),
    );
  return element(
    "div",
    { class: "notice good" },
    element("dl", {}, facts),
    button("Keep the receipt", () => download(given, "receipt.json")),
  );
}

/** Gives a JSON value to the reader as a file. */
export function download(value, name) {
  const href = URL.createObjectURL(
    new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }),
  );
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 0);
}
