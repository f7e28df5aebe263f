/* The calls of the service. No other module fetches.

   A call answers with the answer's JSON and throws a Problem: the service's problem+json. */

const STORED_KEY = "mien-key";

/** What the service says is wrong: its slug, status, title and detail, and all fields it has. */
export class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? body.title);
    Object.assign(this, { fields: body, title: body.title, detail: body.detail, status });
    this.slug = String(body.type ?? "")
      .split("/")
      .pop();
    this.requestId = body.request_id;
  }
}

/** The key of this tab of the browser: gone when the tab is closed, and never sent elsewhere. */
export const key = {
  get: () => sessionStorage.getItem(STORED_KEY),
  set: (text) => sessionStorage.setItem(STORED_KEY, text),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

/** Told of a Problem that a key would have prevented (401). */
export const unauthorised = new EventTarget();

async function send(method, path, { json, form, headers, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  if (json) sent["Content-Type"] = "application/json";
  const body = json ? JSON.stringify(json) : form;
  const answer = await reached(path, { method, headers: sent, body, signal, credentials: "omit" });
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  if (answer.status === 401)
    unauthorised.dispatchEvent(new CustomEvent("key", { detail: problem }));
  throw problem;
}

async function reached(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "no answer came; it may have stopped, or the network has";
    throw new Problem({ title: "The service is out of reach", detail }, 0);
  }
}

async function problemOf(answer) {
  try {
    return new Problem(await answer.json(), answer.status);
  } catch {
    const title = answer.statusText || "No answer of the service";
    return new Problem(
      { title, detail: `status ${answer.status}, without a reason` },
      answer.status,
    );
  }
}

/** The answer's JSON, null where it has no body. */
async function call(method, path, options) {
  const answer = await send(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

/** A form with its files and fields; null and empty fields are left out. */
function formOf(fields, images) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") form.append(name, value);
  }
  for (const [name, file] of images) form.append(name, file, file.name || "photograph");
  return form;
}

const part = encodeURIComponent;
const personPath = (gallery, id) => `/galleries/${part(gallery)}/persons/${part(id)}`;

/** The faces of a photograph with their candidates. */
export const identify = (image, fields, signal) =>
  call("POST", "/identify", { form: formOf(fields, [["image", image]]), signal });

/** Whether two photographs show one person. */
export const verify = (a, b, fields, signal) =>
  call("POST", "/verify", {
    form: formOf(fields, [
      ["image_a", a],
      ["image_b", b],
    ]),
    signal,
  });

/** What the faces of a photograph show. */
export const analyze = (image, fields, signal) =>
  call("POST", "/analyze", { form: formOf(fields, [["image", image]]), signal });

/** A person with photographs. attempt: the same when they are sent again, so that none comes twice. */
export const enrol = (images, fields, attempt) =>
  call("POST", "/enroll", {
    form: formOf(
      fields,
      images.map((image) => ["image", image]),
    ),
    headers: { "Idempotency-Key": attempt },
  });

export const models = () => call("GET", "/models");
export const calibration = (model, signal) =>
  call("GET", `/models/${part(model)}/calibration`, { signal });

/** Every gallery, page by page. */
export async function galleries() {
  const found = [];
  let cursor = null;
  do {
    const page = await call(
      "GET",
      `/galleries?limit=1000${cursor ? `&cursor=${part(cursor)}` : ""}`,
    );
    found.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return found;
}

export const createGallery = (fields) => call("POST", "/galleries", { json: fields });
export const deleteGallery = (gallery) => call("DELETE", `/galleries/${part(gallery)}`);

/** A page of a gallery's people. */
export const persons = (gallery, { cursor, limit, signal }) =>
  call(
    "GET",
    `/galleries/${part(gallery)}/persons?limit=${limit}${cursor ? `&cursor=${part(cursor)}` : ""}`,
    { signal },
  );

export const person = (gallery, id, signal) => call("GET", personPath(gallery, id), { signal });
export const changePerson = (gallery, id, fields) =>
  call("PATCH", personPath(gallery, id), { json: fields });
export const exportPerson = (gallery, id) => call("GET", `${personPath(gallery, id)}/export`);
export const deletePerson = (gallery, id) => call("DELETE", personPath(gallery, id));

/** The faces of a person, the first thousand. */
export const faces = async (gallery, id) =>
  (await call("GET", `${personPath(gallery, id)}/faces?limit=1000`)).items;
export const deleteFace = (gallery, id, face) =>
  call("DELETE", `${personPath(gallery, id)}/faces/${part(face)}`);

/** Why the service is not ready; [] when it is. Throws a Problem when it cannot be asked. */
export async function notReady() {
  try {
    await call("GET", "/readyz");
    return [];
  } catch (error) {
    if (error.status === 503) return error.fields.reasons ?? [error.detail];
    throw error;
  }
}

/** The service's figures, as Prometheus's text. */
export async function metrics() {
  return (await send("GET", "/metrics", { headers: { Accept: "text/plain" } })).text();
}
