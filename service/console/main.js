/* The page: its views as tabs, the state of the service above them, and the key. */

import * as api from "./api.js";
import { analyzeView } from "./analyze.js";
import { button, element, icon, sentence } from "./dom.js";
import { enrolView } from "./enrol.js";
import { refreshGalleries } from "./galleries.js";
import { identifyView } from "./identify.js";
import { askForKey } from "./key.js";
import { peopleView } from "./people.js";
import { ignoreStrayDrops } from "./picker.js";
import { serviceView } from "./service.js";
import { verifyView } from "./verify.js";

const VIEWS = [
  ["identify", "Identify", "Who is this?", identifyView],
  ["verify", "Verify", "Are these two the same person?", verifyView],
  ["analyze", "Analyze", "What does the face show?", analyzeView],
  ["enrol", "Enrol", "This is who they are", enrolView],
  ["people", "People", "Who is enrolled", peopleView],
  ["service", "Service", "How the service is", serviceView],
];

const views = VIEWS.map(([name, title, question, make]) => {
  const node = make();
  const tab = button([icon(name), element("span", {}, title)], () => open(name), {
    role: "tab",
    id: `tab-${name}`,
    "aria-controls": `panel-${name}`,
  });
  const panel = element(
    "section",
    { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: true },
    element("h2", {}, question),
    node,
  );
  return { name, node, tab, panel };
});

/** Shows a view and hides the others. */
function open(name) {
  const chosen = views.find((view) => view.name === name) ?? views[0];
  for (const { tab, panel, node } of views) {
    const here = panel === chosen.panel;
    if (!here && !panel.hidden) node.hiddenFromView?.();
    panel.hidden = !here;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
  }
  history.replaceState(null, "", `#${chosen.name}`);
  chosen.node.shown?.();
  return chosen;
}

/** Arrows, Home and End go from tab to tab. */
function walkTabs(event) {
  const at = views.findIndex(({ tab }) => tab === document.activeElement);
  const steps = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: -1,
  };
  if (at < 0 || !(event.key in steps)) return;
  event.preventDefault();
  const { name, tab } = views.at(steps[event.key] % views.length);
  open(name);
  tab.focus();
}

/** Asks what the service is and holds. */
async function begin() {
  const state = document.getElementById("state");
  try {
    const { items } = await api.models();
    for (const { node } of views) node.served?.(items.map(({ task }) => task));
    await refreshGalleries();
    state.replaceChildren();
  } catch (error) {
    // By the key's window, and by the views.
    const toldElsewhere = error.status === 401 || error.status === 403;
    state.textContent = toldElsewhere ? "" : sentence(error.detail ?? error.message);
  }
}

/** Asks everything anew: there is another key, or none any more. */
function beginAnew() {
  begin();
  open(location.hash.slice(1));
}

const tabs = document.getElementById("tabs");
tabs.append(...views.map(({ tab }) => tab));
tabs.addEventListener("keydown", walkTabs);
document.getElementById("panels").replaceChildren(...views.map(({ panel }) => panel));
document.getElementById("key").addEventListener("click", () => askForKey(null, beginAnew));
api.unauthorised.addEventListener("key", ({ detail }) => askForKey(detail.detail, beginAnew));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address keeps the view's name
  document.getElementById("panels").focus();
});
addEventListener("hashchange", () => open(location.hash.slice(1)));
ignoreStrayDrops();
open(location.hash.slice(1));
begin();
