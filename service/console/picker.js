/* Where photographs come in: dropped, chosen, or taken with the camera. */

import { cameraDialog, hasCamera } from "./camera.js";
import { button, element, icon } from "./dom.js";

/** The place. taken: told the files; several: more than one at once; what: what it asks for;
    stage: where photographs are shown, which may be dropped on too. */
export function picker({ what, several = false, stage = null, taken }) {
  const input = element("input", {
    type: "file",
    class: "unseen",
    accept: "image/*,.heic,.heif,.avif",
    multiple: several,
    "aria-label": `Choose ${what}`,
    change: () => {
      if (input.files.length) taken([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    },
  });
  const choose = element("span", { class: "button" }, icon("photograph"), "Choose");
  const asking = element(
    "div",
    { class: "drop" },
    element("p", {}, `Drop ${what}`, element("span", { class: "here" }, " here")),
    element(
      "div",
      { class: "row" },
      element("label", { class: "choose" }, input, choose),
      cameraButton(several, taken),
    ),
  );
  const place = element("div", { class: "place" }, stage, asking);
  takeDrops(place, several, taken);
  return place;
}

function cameraButton(several, taken) {
  if (!hasCamera()) return null;
  return button([icon("camera"), "Camera"], () => cameraDialog({ several, taken }));
}

function takeDrops(place, several, taken) {
  const over = (event) => {
    event.preventDefault();
    place.classList.add("over");
  };
  place.addEventListener("dragenter", over);
  place.addEventListener("dragover", over);
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) taken(several ? files : files.slice(0, 1));
  });
}

/** A photograph that is dropped beside a place must not take the page's place. */
export function ignoreStrayDrops() {
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault());
  }
}
