/* The service's figures out of Prometheus's text format. */

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n" };

/** The samples by their name, each with its labels and value. */
export function read(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line[0] !== "#" && SAMPLE.exec(line);
    if (!found) continue;
    const [, name, labels, value] = found;
    if (!samples.has(name)) samples.set(name, []);
    samples
      .get(name)
      .push({ labels: labelsOf(labels ?? ""), value: Number(value.replace("Inf", "Infinity")) });
  }
  return samples;
}

function labelsOf(text) {
  const pairs = [...text.matchAll(LABEL)];
  return Object.fromEntries(
    pairs.map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, c) => ESCAPED[c] ?? c)]),
  );
}

/** The sum of the samples of that name whose labels are accepted. */
export function sum(samples, name, accepts = () => true) {
  const chosen = (samples.get(name) ?? []).filter(({ labels }) => accepts(labels));
  return chosen.reduce((total, { value }) => total + value, 0);
}

/** A quantile of a histogram, in its unit, the samples of all labels accepted taken together.

    Within a bucket values are taken as evenly spread, as Prometheus's histogram_quantile does;
    NaN where nothing was counted. before: earlier samples, to count only what came since. */
export function quantile(share, samples, name, accepts = () => true, before = new Map()) {
  const buckets = cumulative(samples, name, accepts);
  const old = cumulative(before, name, accepts);
  const counts = [...buckets]
    .map(([bound, total]) => [bound, total - (old.get(bound) ?? 0)])
    .sort(([a], [b]) => a - b);
  const rank = share * (counts.at(-1)?.[1] ?? 0);
  if (!(rank > 0)) return NaN; // below nought where the service began anew in between
  const at = counts.findIndex(([, total]) => total >= rank);
  const [low, below] = at > 0 ? counts[at - 1] : [0, 0];
  const [high, total] = counts[at];
  return Number.isFinite(high) ? low + ((high - low) * (rank - below)) / (total - below) : low;
}

function cumulative(samples, name, accepts) {
  const buckets = new Map();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    if (accepts(labels)) buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  return buckets;
}
