/* A similarity drawn: on a scale with its threshold, and on the two curves of a calibration. */

import { shape } from "./dom.js";
import { many, percent, similarityWords } from "./words.js";

const WIDTH = 640;
const HEIGHT = 220;
const BASE = 186; // the y of the axis
const STEP = 0.02; // the width of a column of the curves

/** A bar from 0 to 1 with a tick at the threshold; the numbers stand beside it as text. */
export function scale(similarity, threshold) {
  const x = (value) => 200 * Math.min(1, Math.max(0, value));
  return shape(
    "svg",
    { class: "scale", viewBox: "0 0 200 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { class: "ground", y: 3, width: 200, height: 6 }),
    shape("rect", {
      class: similarity >= threshold ? "filled" : "short",
      y: 3,
      width: x(similarity),
      height: 6,
    }),
    shape("rect", { class: "tick", x: x(threshold) - 1, width: 2, height: 12 }),
  );
}

/** The similarity where pairs of one person and of strangers were found in the calibration. */
export function curves(calibration, similarity, threshold) {
  const { mated, strangers, low, high } = densities(calibration.curve);
  const x = (value) => 20 + ((WIDTH - 40) * (value - low)) / (high - low);
  const inView = (value) => x(Math.min(high, Math.max(low, value)));
  const label =
    `Similarity ${similarityWords(similarity)} and threshold ${similarityWords(threshold)} ` +
    "on the similarities of the calibration's pairs";
  return shape(
    "svg",
    { class: "curves", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    shape("path", { class: "strangers", d: area(strangers, x) }),
    shape("path", { class: "mated", d: area(mated, x) }),
    shape("line", { class: "axis", x1: 20, x2: WIDTH - 20, y1: BASE, y2: BASE }),
    axisTicks(low, high, x),
    marker(
      "threshold",
      inView(threshold),
      26,
      ["threshold", similarityWords(threshold)],
      similarity > threshold ? -1 : 1,
    ),
    marker(
      "found",
      inView(similarity),
      26,
      ["these two", similarityWords(similarity)],
      similarity > threshold ? 1 : -1,
    ),
  );
}

/** How often the calibration's pairs are so alike, in words. */
export function curveWords(calibration, similarity) {
  const { similarity: grid, fmr, fnmr } = calibration.curve;
  const at = (rates) => rates[nearest(grid, similarity)];
  return (
    `In the calibration, ${strangersWords(at(fmr), calibration.smallest_fmr)} of different people are at least ` +
    `this alike, and ${percent(1 - at(fnmr))} of the pairs of one person.`
  );
}

function strangersWords(rate, smallest) {
  if (rate < smallest) return `fewer than one in ${many(smallest)} pairs`;
  return rate < 0.1 ? `one in ${many(rate)} pairs` : `${percent(rate)} of the pairs`;
}

function nearest(grid, value) {
  const after = grid.findIndex((entry) => entry >= value);
  return after < 0 ? grid.length - 1 : after;
}

/** Shares of the pairs in columns of similarity, from the rates of all that are at or above it. */
function densities({ similarity, fmr, fnmr }) {
  const columns = Math.max(1, Math.round(STEP / (similarity[1] - similarity[0])));
  const mated = [];
  const strangers = [];
  for (let i = 0; i + columns < similarity.length; i += columns) {
    const middle = (similarity[i] + similarity[i + columns]) / 2;
    strangers.push([middle, fmr[i] - fmr[i + columns]]);
    mated.push([middle, fnmr[i + columns] - fnmr[i]]);
  }
  const inView = [...mated, ...strangers]
    .filter(([, share]) => share > 1e-4)
    .map(([middle]) => middle);
  const low = Math.min(-0.2, ...inView);
  return { mated: smooth(mated), strangers: smooth(strangers), low, high: 1 };
}

function smooth(points) {
  const share = (i) => points[Math.min(points.length - 1, Math.max(0, i))][1];
  return points.map(([middle], i) => [middle, (share(i - 1) + 2 * share(i) + share(i + 1)) / 4]);
}

/** The path of an area under points. Each curve has its own height: they are of other numbers. */
function area(points, x) {
  const most = Math.max(...points.map(([, share]) => share));
  const y = (share) => BASE - 130 * (share / most);
  const line = points
    .filter(([middle]) => x(middle) >= 20)
    .map(([middle, share]) => `${x(middle).toFixed(1)} ${y(share).toFixed(1)}`);
  return `M${line[0].split(" ")[0]} ${BASE}L${line.join("L")}L${line.at(-1).split(" ")[0]} ${BASE}Z`;
}

function axisTicks(low, high, x) {
  const values = [];
  for (let value = Math.ceil(low / 0.2) * 0.2; value <= high + 1e-9; value += 0.2)
    values.push(value);
  return values.map((value) =>
    shape(
      "text",
      { class: "number", x: x(value), y: BASE + 20 },
      value.toFixed(1).replace("-0.0", "0.0").replace("-", "\u2212"),
    ),
  );
}

/** A line with two words at its top. side: 1 writes to its right, -1 to its left. */
function marker(name, x, top, [text, number], side) {
  const fits = x < 110 ? 1 : x > WIDTH - 110 ? -1 : side;
  const anchor = { x: x + 8 * fits, "text-anchor": fits > 0 ? "start" : "end" };
  return shape(
    "g",
    { class: name },
    shape("line", { x1: x, x2: x, y1: top - 14, y2: BASE }),
    shape("text", { ...anchor, y: top - 4 }, text),
    shape("text", { ...anchor, y: top + 12, class: "value" }, number),
  );
}
