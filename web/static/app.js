// Switches between the views. The URL fragment names the view, so that back, reload and bookmarks work.

import { chatView } from "./chat.js";
import { documentsView } from "./documents.js";
import { find } from "./dom.js";
import { watchHealth } from "./health.js";
import { jobsView } from "./jobs.js";
import { keepKey } from "./key.js";
import { lookNow } from "./watch.js";

const VIEWS = {
  chat: { title: "Chat", ...chatView() },
  documents: { title: "Documents", ...documentsView() },
  jobs: { title: "Jobs", ...jobsView() },
};

let shown = null;

function route() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  // Not `name in VIEWS`: every object has toString and the like.
  const next = Object.hasOwn(VIEWS, name) ? name : "chat";
  if (shown !== null) VIEWS[shown].hide();
  shown = next;
  for (const view of Object.keys(VIEWS)) find(`${view}-view`).hidden = view !== next;
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === next) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[next].title} · Enginehouse`;
  window.scrollTo(0, 0);
  VIEWS[next].show(rest[0]);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  // Following the link would change the fragment and leave the view.
  event.preventDefault();
  find("main").focus();
});
document.addEventListener("key-wanted", () => {
  find("key-form").hidden = false;
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(find("key").value.trim());
  find("key").value = "";
  find("key-form").hidden = true;
  lookNow();
});
window.addEventListener("hashchange", route);
route();
watchHealth();
