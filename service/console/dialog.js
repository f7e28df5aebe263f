/* Windows over the page: they keep the focus until they are closed, and give it back then. */

import { button, element, labelledBy, problemNotice } from "./dom.js";

let opened = 0;

/** An open window. closed: called once, however it is closed. */
export function openDialog({ title, body, actions, closed }) {
  const id = `dialog-${(opened += 1)}`;
  const dialog = element(
    "dialog",
    {
      "aria-labelledby": id,
      close: () => {
        dialog.remove();
        closed?.();
      },
    },
    element("h2", { id }, title),
    body,
    element("div", { class: "row end" }, actions),
  );
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Asks before something is erased, with the focus on Cancel. typed: a text to be typed first.

    erase: does it, and gives what is to be shown afterwards, or nothing. */
export function confirmErasure({ title, text, action, typed, erase, closed }) {
  let erased = false;
  const asked = element("p", {}, text);
  const told = element("div", { "aria-live": "polite" });
  const confirm = button(action, run, { class: "danger", disabled: Boolean(typed) });
  const cancel = button("Cancel", () => dialog.close());
  const field =
    typed &&
    element("input", {
      type: "text",
      autocomplete: "off",
      spellcheck: "false",
      input: () => {
        confirm.disabled = field.value !== typed;
      },
    });
  const dialog = openDialog({
    title,
    body: [asked, field && labelledBy(`Type ${typed} to go on`, field), told],
    actions: [cancel, confirm],
    closed: () => closed?.(erased),
  });
  cancel.focus();

  async function run() {
    confirm.disabled = true;
    try {
      const shown = await erase();
      erased = true;
      if (!dialog.open) return closed?.(true); // it was closed while the service erased
      if (!shown) return dialog.close();
      dialog.querySelector("h2").textContent = "Erased";
      told.replaceChildren(shown);
      for (const done of [asked, field?.parentElement, confirm]) done?.remove();
      cancel.textContent = "Close";
      cancel.focus();
    } catch (error) {
      told.replaceChildren(problemNotice(error));
      confirm.disabled = false;
    }
  }
  return dialog;
}
