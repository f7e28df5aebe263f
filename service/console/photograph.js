/* A photograph with faces marked on it.

   What is sent is the file itself; here it is drawn upright and scaled down, for the eye alone. */

import { element, shape } from "./dom.js";

const WIDEST_PX = 1600;
const AVATAR_PX = 96;

/** A photograph of a file: `node` to show, `mark` to draw faces on it, `face` for a picture of one.

    mark takes the photograph's size where an answer told it. Without, it is the one that the browser
    read; a photograph that it cannot read stays unmarked. */
export async function openPhotograph(file) {
  const canvas = element("canvas", { role: "img", "aria-label": `Photograph ${file.name}` });
  const size = await drawn(file, canvas);
  const overlay = shape("svg", { class: "overlay", "aria-hidden": "true" });
  const node = element("figure", { class: "photograph" }, canvas, overlay);
  if (!size) {
    const text = "This browser cannot show the photograph. The service may be able to read it.";
    node.append(element("figcaption", {}, text));
  }
  let redraw = () => {};
  new ResizeObserver(() => redraw()).observe(node);
  return {
    node,
    mark(marks, told) {
      const { width, height } = told ?? size ?? {};
      if (!width) return;
      if (!size) blank(canvas, width, height);
      overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
      redraw = () => drawMarks(overlay, marks, width);
      redraw();
    },
    face: (box, width) => portrait(canvas, box, canvas.width / width),
  };
}

/** Draws the file on the canvas, upright as EXIF says; its size, null where it cannot be read. */
async function drawn(file, canvas) {
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    blank(canvas, 640, 400);
    return null;
  }
  const scale = Math.min(1, WIDEST_PX / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const size = { width: picture.width, height: picture.height };
  picture.close();
  return size;
}

function blank(canvas, width, height) {
  const scale = Math.min(1, WIDEST_PX / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
}

/** Boxes with their texts. marks: {box, text, kind}; a text is as large however wide the page is. */
function drawMarks(overlay, marks, width) {
  const shown = overlay.getBoundingClientRect().width;
  if (!shown) return;
  const unit = width / shown; // pixels of the photograph to one of the page
  overlay.replaceChildren(...marks.map((mark) => frame(mark, unit)));
  for (const group of overlay.children) placeText(group, width, unit);
}

function frame({ box, text, kind }, unit) {
  const outline = (name, wide) =>
    shape("rect", { ...box, class: name, rx: 6 * unit, "stroke-width": wide * unit });
  return shape(
    "g",
    { class: `mark ${kind ?? ""}`, "data-x": box.x, "data-y": box.y },
    outline("halo", 5),
    outline("line", 2.5),
    text && shape("rect", { class: "plate", rx: 4 * unit }),
    text && shape("text", { "font-size": 13 * unit }, text),
  );
}

/** Puts a text on a plate above its box, or inside it where there is no room. */
function placeText(group, width, unit) {
  const text = group.querySelector("text");
  if (!text) return;
  const wide = text.getComputedTextLength() + 14 * unit;
  const high = 22 * unit;
  const x = Math.max(0, Math.min(Number(group.dataset.x), width - wide));
  const above = Number(group.dataset.y) - high - 3 * unit;
  const y = above < 0 ? Math.max(0, Number(group.dataset.y)) + 3 * unit : above;
  const plate = group.querySelector(".plate");
  for (const [name, value] of Object.entries({ x, y, width: wide, height: high })) {
    plate.setAttribute(name, value);
  }
  text.setAttribute("x", x + 7 * unit);
  text.setAttribute("y", y + 15.5 * unit);
}

/** A small square picture of a face, a little of what is around it included. */
function portrait(source, box, scale) {
  const picture = element("canvas", {
    class: "avatar",
    width: AVATAR_PX,
    height: AVATAR_PX,
    "aria-hidden": "true",
  });
  const side = Math.max(box.width, box.height) * 1.3 * scale;
  const x = (box.x + box.width / 2) * scale - side / 2;
  const y = (box.y + box.height / 2) * scale - side / 2;
  const context = picture.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, x, y, side, side, 0, 0, AVATAR_PX, AVATAR_PX);
  return picture;
}
