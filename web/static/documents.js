// The documents of one collection: upload, progress, search, delete.

import { ApiError, call } from "./api.js";
import { confirmed, element, find, setNotice, setText, showChoices, showList } from "./dom.js";
import { recall, remember } from "./remember.js";
import { searchBox } from "./search.js";
import { Uploads } from "./uploads.js";
import { Watch } from "./watch.js";
import { bytes, count, documentStatus, moment, underWay } from "./words.js";

const BUSY_SECONDS = 1;
const IDLE_SECONDS = 10;
const PAGE = 50;

/** The view: `show` and `hide`. */
export function documentsView() {
  let collection = recall("collection", "default");
  // The page creates a collection with its first upload; until then it only has a name here.
  let created = [];
  let sizes = new Map();
  let pages = 1;

  const say = (words) => setNotice(find("documents-trouble"), words);
  const watch = new Watch(look, say, IDLE_SECONDS);
  const uploads = new Uploads(() => watch.now());
  const forgetSearch = searchBox(() => collection);

  async function look(signal) {
    const { data } = await call("GET", "/collections", { signal });
    sizes = new Map(data.map((found) => [found.name, found.documents]));
    created = created.filter((name) => !sizes.has(name));
    const names = [...sizes.keys(), ...created];
    if (names.length === 0) names.push("default");
    if (!names.includes(collection)) choose(names[0]);
    showNames(names);
    const documents = await read(signal);
    return uploads.busy || documents.some(underWay) ? BUSY_SECONDS : IDLE_SECONDS;
  }

  function showNames(names) {
    const choices = names.map((name) => ({ value: name, label: `${name} (${sizes.get(name) ?? 0})` }));
    showChoices(find("collection"), choices, collection);
    find("collection").value = collection;
    setText(find("drop-collection"), collection);
    find("collection-delete").disabled = !sizes.has(collection) && !created.includes(collection);
  }

  async function read(signal) {
    const documents = [];
    let after = null;
    for (let i = 0; i < pages && sizes.has(collection); i += 1) {
      const query = after === null ? `limit=${PAGE}` : `limit=${PAGE}&after=${after}`;
      const answer = await call("GET", `/collections/${encodeURIComponent(collection)}/documents?${query}`, { signal });
      documents.push(...answer.data);
      after = answer.next;
      if (after === null) break;
    }
    const total = sizes.get(collection) ?? 0;
    setText(find("documents-count"), total === 0 ? "No documents yet" : count(total, "document"));
    showList(find("documents-list"), documents, (found) => found.id, documentItem, showDocument);
    find("documents-more").hidden = after === null;
    return documents;
  }

  function documentItem(found) {
    const remove = element("button", { type: "button", class: "plain small danger", "aria-label": `Delete ${found.name}` }, "Delete");
    remove.addEventListener("click", () => removeDocument(found, remove));
    return element(
      "li",
      { class: "document" },
      element("div", { class: "title" }, element("strong", { class: "name" }, found.name), element("span", { class: "badge" })),
      element("p", { class: "reason", hidden: true }),
      element("p", { class: "hint facts-line" }),
      element("progress", { max: "1", "aria-label": `Pages of ${found.name}`, hidden: true }),
      remove,
    );
  }

  async function removeDocument(found, button) {
    if (!(await confirmed(`Delete ${found.name}? Its passages will no longer be found.`, "Delete"))) return;
    button.disabled = true;
    // The button disappears with its document. Keyboard focus must stay nearby.
    find("documents-count").focus();
    await attempt(() => call("DELETE", `/documents/${found.id}`));
    button.disabled = false;
  }

  async function removeCollection() {
    const total = sizes.get(collection) ?? 0;
    if (!(await confirmed(`Delete the collection ${collection} and its ${count(total, "document")}?`, "Delete"))) return;
    const name = collection;
    created = created.filter((other) => other !== name);
    if (sizes.has(name)) await attempt(() => call("DELETE", `/collections/${encodeURIComponent(name)}`));
    else watch.now();
  }

  /** Does something and refreshes. An error is shown until the next refresh. */
  async function attempt(action) {
    try {
      await action();
      await watch.now();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(error.message);
    }
  }

  function choose(name) {
    collection = name;
    pages = 1;
    remember("collection", name);
    find("documents-list").replaceChildren();
    forgetSearch();
  }

  find("collection").addEventListener("change", (event) => {
    choose(event.target.value);
    watch.now();
  });
  find("collection-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = find("collection-name").value.trim();
    find("collection-name").value = "";
    if (!sizes.has(name) && !created.includes(name)) created.push(name);
    choose(name);
    watch.now();
  });
  find("collection-delete").addEventListener("click", removeCollection);
  find("documents-more").addEventListener("click", () => {
    pages += 1;
    watch.now();
  });
  acceptFiles((files) => {
    uploads.add(files, collection);
    if (!sizes.has(collection) && !created.includes(collection)) created.push(collection);
    watch.now();
  });

  return { show: () => watch.start(), hide: () => watch.stop() };
}

function showDocument(node, found) {
  const [word, tone] = documentStatus(found.status);
  const badge = node.querySelector(".badge");
  setText(badge, word);
  badge.dataset.tone = tone;
  setNotice(node.querySelector(".reason"), found.reason);
  const facts = [bytes(found.size), moment(found.created_at)];
  const busy = underWay(found);
  if (found.pages > 0) facts.unshift(busy ? `${found.pages_done} of ${count(found.pages, "page")}` : count(found.pages, "page"));
  if (found.chunks > 0) facts.push(count(found.chunks, "chunk"));
  setText(node.querySelector(".facts-line"), facts.join(" · "));
  const progress = node.querySelector("progress");
  // Once all pages are read, the status shows the progress.
  progress.hidden = !busy || found.pages_done === found.pages;
  progress.value = found.pages_done / Math.max(1, found.pages);
}

/** Accepts files that are dropped anywhere in the view, or chosen in the file dialog. */
function acceptFiles(onFiles) {
  const view = find("documents-view");
  const mark = (on) => find("drop").classList.toggle("over", on);
  const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
  view.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  view.addEventListener("dragleave", (event) => {
    if (!view.contains(event.relatedTarget)) mark(false);
  });
  view.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(false);
    onFiles([...event.dataTransfer.files]);
  });
  find("files").addEventListener("change", (event) => {
    onFiles([...event.target.files]);
    // Choosing the same file again must fire a change event.
    event.target.value = "";
  });
}
