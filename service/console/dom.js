/* Elements out of data. Text is always text: a name with markup in it is only a name. */

const SVG = "http://www.w3.org/2000/svg";

/** An element. attributes: a function listens to the event of that name; null and false are none. */
export function element(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of SVG, in the same way. */
export function shape(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** One of the icons that index.html holds; it says nothing to a screen reader. */
export function icon(name) {
  return shape(
    "svg",
    { class: "icon", "aria-hidden": "true" },
    shape("use", { href: `#icon-${name}` }),
  );
}

/** A button that does something. */
export function button(text, click, attributes) {
  return element("button", { type: "button", click, ...attributes }, text);
}

let labelled = 0;

/** A control with its name above it and, where there is one, a hint under it. */
export function labelledBy(text, control, hint) {
  control.id ||= `control-${(labelled += 1)}`;
  const said = hint && element("small", { id: `${control.id}-hint` }, hint);
  if (said) control.setAttribute("aria-describedby", said.id);
  return element(
    "div",
    { class: "field" },
    element("label", { for: control.id }, text),
    control,
    said,
  );
}

/** A list to choose one of. options: [value, text]. */
export function choice(options, chosen, change) {
  const listed = options.map(([value, text]) =>
    element("option", { value, selected: value === chosen }, text),
  );
  return element("select", { change }, listed);
}

/** A table with a caption for screen readers alone. rows: lists of cells, the first a heading. */
export function table(caption, heads, rows, attributes) {
  const head = heads.map((text) => element("th", { scope: "col" }, text));
  return element(
    "table",
    attributes,
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, element("tr", {}, head)),
    element(
      "tbody",
      {},
      rows.map((cells) => row(heads, cells)),
    ),
  );
}

function row(heads, cells) {
  return element(
    "tr",
    {},
    cells.map((cell, i) =>
      i === 0
        ? element("th", { scope: "row" }, cell)
        : element("td", { "data-head": typeof heads[i] === "string" ? heads[i] : null }, cell),
    ),
  );
}

/** What went wrong, in the service's own words. error: a Problem, or a failure of this page. */
export function problemNotice(error) {
  const id = error.status >= 500 && error.requestId;
  return element(
    "div",
    { class: "notice bad", role: "alert" },
    element("strong", {}, error.title ?? "Something went wrong on this page"),
    element("p", {}, sentence(error.detail ?? String(error.message ?? error))),
    id && element("p", { class: "fine" }, `Request ${id}`),
  );
}

/** A text with a large letter before and a full stop behind. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Runs work that fills a region: busy meanwhile, and what goes wrong is told in it. signal: aborted
    when other work has taken the region, which is then left to that. */
export async function working(region, work, signal) {
  region.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (!signal?.aborted) region.replaceChildren(problemNotice(error));
  } finally {
    if (!signal?.aborted) region.removeAttribute("aria-busy");
  }
}
