/* What allows to keep a person's face: asked for at an enrolment. */

import { choice, element, labelledBy } from "./dom.js";

const BASES = [
  ["", "Nothing is recorded"],
  ["explicit-consent", "Explicit consent"],
  ["consent", "Consent"],
  ["contract", "Contract"],
  ["legal-obligation", "Legal obligation"],
  ["vital-interests", "Vital interests"],
  ["public-task", "Public task"],
  ["legitimate-interests", "Legitimate interests"],
  ["written-release", "Written release"],
];
const LIKELIEST = BASES[1][0];

/** The fields. `require` says whether the gallery asks for them; `value` is null, or `consent` as JSON. */
export function consentFields() {
  const basis = choice(BASES, "", () => follow());
  const time = element("input", { type: "datetime-local", value: localNow() });
  const reference = element("input", { type: "text", maxlength: 512, autocomplete: "off" });
  const rest = element(
    "div",
    { class: "form-part", hidden: true },
    labelledBy("Given at", time),
    labelledBy("Where it is written down", reference),
  );
  const follow = () => {
    rest.hidden = time.disabled = !basis.value;
  };
  follow();
  return {
    node: element(
      "div",
      { class: "form-part" },
      labelledBy("What allows to keep the face", basis),
      rest,
    ),
    require(required) {
      basis.required = required;
      basis.options[0].hidden = required;
      if (required && !basis.value) basis.value = LIKELIEST;
      follow();
    },
    value() {
      if (!basis.value) return null;
      const given = { basis: basis.value, time: new Date(time.value || Date.now()).toISOString() };
      if (reference.value.trim()) given.reference = reference.value.trim();
      return JSON.stringify(given);
    },
  };
}

/** The minute that it is, as a field for date and time takes it. */
function localNow() {
  const now = new Date();
  return new Date(now - now.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
