/* Numbers and decisions in words. */

const WHOLE = new Intl.NumberFormat("en");
const DECISIONS = { match: "Match", uncertain: "Uncertain", no_match: "No match" };

/** A decision as a person says it. */
export const decisionWords = (decision) => DECISIONS[decision] ?? decision;

/** What a decision asks of the one who reads it. */
export function decisionMeaning(decision, subject) {
  return {
    match: `${subject} at or above the threshold.`,
    uncertain: `${subject} just under the threshold, where its uncertainty would allow a match: look yourself.`,
    no_match: `${subject} under the threshold.`,
  }[decision];
}

/** A similarity with the digits that mean anything. */
export const similarityWords = (similarity) => similarity.toFixed(3).replace("-", "\u2212");

/** A whole number with its thousands apart. */
export const whole = (number) => WHOLE.format(Math.round(number));

/** A share of one as a percentage. */
export function percent(share) {
  const near = Math.min(share, 1 - share); // to one of the ends, where a digit more tells something
  return `${(100 * share).toFixed(near >= 0.0005 && near < 0.05 ? 1 : 0)} %`;
}

/** A small rate by how many it takes: 0.01 is "100". */
export const many = (rate) => whole(Number((1 / rate).toPrecision(2)));

/** What the threshold of an answer promises. */
export function thresholdWords(threshold) {
  const at = `A match takes a similarity of at least ${similarityWords(threshold.similarity)}`;
  if (threshold.by === "threshold") return `${at}, as you asked.`;
  const times = many(threshold.target);
  const promise = {
    target_fpir: `A stranger then matches anyone in the gallery once in ${times} searches`,
    target_fmr: `Two different people are then taken for one once in ${times} comparisons`,
  }[threshold.by];
  const [low, high] = threshold.interval;
  const sure =
    low > 0 && low < high ? ` (95 % certain: once in ${many(high)} to once in ${many(low)})` : "";
  const fitted = threshold.extrapolated ? " So small a rate was fitted, and not measured." : "";
  const by = threshold.calibration ? ` Your calibration ${threshold.calibration} decided.` : "";
  const of =
    threshold.population === "calibration" ? "" : ` Strangers as in the population ${threshold.population} are meant.`;
  return `${at}. ${promise}${sure}.${fitted}${by}${of}`;
}

/** A name of the wire as words: 5_o_Clock_Shadow, inter_eye_distance. */
export function plain(name) {
  const words = name.replaceAll(/[_-]+/g, " ").toLowerCase().replace("5 o clock", "five-o'clock");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** How many of something: "1 face", "3 faces". */
export const count = (number, one, many = `${one}s`) =>
  `${whole(number)} ${number === 1 ? one : many}`;

/** A measured value, short. */
export function figure(value) {
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? whole(value) : String(Number(value.toPrecision(3)));
}

/** A moment as date and time of day, where the reader is. */
export const moment = (iso) =>
  new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** A time in seconds, in the unit that fits. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800
    ? `${Math.round(seconds / 3600)} h`
    : `${Math.round(seconds / 86_400)} days`;
}
