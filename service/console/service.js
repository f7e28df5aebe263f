/* How the service is: readiness, and live figures out of /metrics, while it is looked at. */

import * as api from "./api.js";
import { element, problemNotice, shape, table } from "./dom.js";
import { quantile, read, sum } from "./figures.js";
import { count, duration, whole } from "./words.js";

const EVERY_MS = 4000;
const KEPT = 75; // five minutes
const FEWEST = 15; // samples that a line has room for, so that it grows from the right
// What this page itself asks for, again and again.
const OWN = /^\/(metrics|readyz|console\/\{file\})?$/;

/** The view. */
export function serviceView() {
  const readiness = element("div", { role: "status" });
  const wrong = element("div", {});
  const tiles = element("div", { class: "tiles" });
  const routes = element("div", { class: "list" });
  const decisions = element("div", { class: "list" });
  const models = element("div", { class: "list" });
  const node = element(
    "div",
    {},
    readiness,
    wrong,
    tiles,
    element("h3", {}, "Requests by route"),
    routes,
    element("h3", {}, "Faces"),
    decisions,
    element("h3", {}, "Networks"),
    models,
    element(
      "p",
      { class: "fine" },
      "Counts are since the service started, of all its worker processes. The lines show the last " +
        "minutes in which this view was open.",
    ),
  );
  const history = [];
  let timer = null;
  let watched = false;

  async function look() {
    clearTimeout(timer);
    if (!watched || document.hidden) return;
    try {
      const [reasons, text] = await Promise.all([api.notReady(), api.metrics()]);
      history.push({ at: performance.now() / 1000, samples: read(text) });
      if (history.length > KEPT) history.shift();
      wrong.replaceChildren();
      ready(reasons);
      show(history);
    } catch (error) {
      readiness.replaceChildren(); // nobody knows
      const notice = problemNotice(error);
      if (wrong.textContent !== notice.textContent) wrong.replaceChildren(notice); // told once
      if (error.status === 401 || error.status === 403) return; // another key will look anew
    }
    timer = setTimeout(look, EVERY_MS);
  }

  function ready(reasons) {
    const text = reasons.length ? `Not ready: ${reasons.join("; ")}` : "Ready";
    if (readiness.textContent === text) return; // said once, and not every few seconds
    readiness.replaceChildren(
      element("p", { class: `readiness ${reasons.length ? "bad" : "good"}` }, text),
    );
  }

  function show(past) {
    const { samples } = past.at(-1);
    tiles.replaceChildren(...tilesOf(past));
    routes.replaceChildren(routesOf(samples));
    decisions.replaceChildren(decisionsOf(samples));
    models.replaceChildren(modelsOf(samples));
  }

  node.shown = () => {
    watched = true;
    look();
  };
  node.hiddenFromView = () => {
    watched = false;
    clearTimeout(timer);
  };
  document.addEventListener("visibilitychange", look);
  return node;
}

const isOthers = ({ route }) => !OWN.test(route);

function tilesOf(past) {
  const { samples } = past.at(-1);
  const memory = sum(samples, "process_resident_memory_bytes") / 2 ** 20;
  const tail = past
    .slice(1)
    .map((one, i) =>
      quantile(0.95, one.samples, "mien_request_seconds", isOthers, past[i].samples),
    );
  return [
    tile(
      "Requests",
      rateWords(perMinute(past, "mien_requests_total", isOthers)),
      perMinute(past, "mien_requests_total", isOthers),
    ),
    tile(
      "95 % answered within",
      duration(tail.filter(Number.isFinite).at(-1)),
      tail.map((value) => value || 0),
    ),
    tile(
      "Faces seen",
      rateWords(perMinute(past, "mien_faces_per_image_sum")),
      perMinute(past, "mien_faces_per_image_sum"),
    ),
    tile(
      "Faces in line",
      whole(sum(samples, "mien_queue_depth")),
      past.map((one) => sum(one.samples, "mien_queue_depth")),
    ),
    tile(
      "Refused",
      rateWords(perMinute(past, "mien_refused_total")),
      perMinute(past, "mien_refused_total"),
    ),
    tile(
      "Memory",
      `${whole(memory)} MiB`,
      past.map((one) => sum(one.samples, "process_resident_memory_bytes")),
    ),
  ];
}

/** How a counter grew from each sample to the next, in a minute. */
function perMinute(past, name, accepts) {
  return past.slice(1).map((one, i) => {
    const grown = sum(one.samples, name, accepts) - sum(past[i].samples, name, accepts);
    return (60 * Math.max(0, grown)) / (one.at - past[i].at);
  });
}

const rateWords = (rates) => (rates.length ? `${whole(rates.at(-1))}/min` : "–");

function tile(title, value, line) {
  return element(
    "div",
    { class: "tile" },
    element("p", { class: "title" }, title),
    element("p", { class: "value" }, value),
    sparkline(line),
  );
}

/** A small line of the last values, newest at the right. */
function sparkline(values) {
  const most = Math.max(...values, 1e-9);
  const x = (i) => 200 - (values.length - 1 - i) * (200 / (Math.max(FEWEST, values.length) - 1));
  const y = (value) => 34 - 30 * (value / most);
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  return shape(
    "svg",
    { class: "spark", viewBox: "0 0 200 36", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("line", { class: "axis", x1: 0, x2: 200, y1: 34, y2: 34 }),
    points.length > 1 && shape("polyline", { points: points.join(" ") }),
  );
}

function routesOf(samples) {
  const names = [
    ...new Set((samples.get("mien_requests_total") ?? []).map(({ labels }) => labels.route)),
  ];
  const rows = names
    .filter((route) => isOthers({ route }))
    .map((route) => {
      const here = (labels) => labels.route === route;
      const failed = sum(
        samples,
        "mien_requests_total",
        (labels) => here(labels) && labels.status >= "400",
      );
      const at = (share) => duration(quantile(share, samples, "mien_request_seconds", here));
      return [
        element("code", {}, route),
        sum(samples, "mien_requests_total", here),
        failed,
        at(0.5),
        at(0.95),
      ];
    });
  if (!rows.length) return element("p", {}, "No request yet.");
  rows.sort(([, a], [, b]) => b - a);
  return table(
    "Requests by route",
    ["Route", "Requests", "Refused or failed", "Median", "95 % within"],
    rows.map(([route, all, failed, ...times]) => [route, whole(all), whole(failed), ...times]),
    { class: "numbers" },
  );
}

function decisionsOf(samples) {
  const total = (decision) =>
    sum(samples, "mien_decisions_total", (labels) => labels.decision === decision);
  const [match, uncertain, none] = ["match", "uncertain", "no_match"].map(total);
  const enrolled = count(sum(samples, "mien_gallery_faces"), "face is", "faces are");
  const seen = count(sum(samples, "mien_faces_per_image_sum"), "face was", "faces were");
  return element(
    "p",
    {},
    `${enrolled} enrolled. ${seen} found in photographs; of those that were compared ` +
      `${count(match, "matched", "matched")}, ${whole(uncertain)} were uncertain and ${whole(none)} did not match.`,
  );
}

function modelsOf(samples) {
  const rows = (samples.get("mien_model_info") ?? []).map(({ labels }) => [
    labels.model,
    labels.provider.replace("ExecutionProvider", ""),
    labels.threads,
  ]);
  return table("Networks", ["Network", "Runs on", "Threads"], rows);
}
