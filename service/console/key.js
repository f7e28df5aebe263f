/* The key of a service that asks for one: kept for this tab alone. */

import * as api from "./api.js";
import { button, element, labelledBy, sentence } from "./dom.js";
import { openDialog } from "./dialog.js";

let asking = false;

/** Asks for the key. reason: why it is asked; accepted: called when another key, or none, is set. */
export function askForKey(reason, accepted) {
  if (asking) return;
  asking = true;
  const field = element("input", {
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    pattern: "\\s*[!-~]+\\s*", // what a header can carry
    title: "A key has letters, digits and signs of ASCII, and no blanks.",
  });
  let answered = false;
  const use = (text) => {
    answered = true;
    if (text) api.key.set(text);
    else api.key.forget();
    dialog.close();
    asking = false; // the window's own word comes later, and the next question perhaps before it
    accepted();
  };
  const form = element(
    "form",
    {
      id: "key-form",
      submit: (event) => {
        event.preventDefault();
        use(field.value.trim());
      },
    },
    labelledBy(
      "Key",
      field,
      "It is kept until this tab is closed, and sent to this service alone.",
    ),
  );
  const dialog = openDialog({
    title: "The key of this service",
    body: [reason && element("p", {}, sentence(reason)), form],
    actions: [
      button("Cancel", () => dialog.close()),
      api.key.get() && button("Forget the key", () => use("")),
      element("button", { class: "main", form: "key-form" }, "Use this key"),
    ],
    closed: () => {
      if (!answered) asking = false;
    },
  });
  field.focus();
}
