// The owner's jobs, newest first, in pages that refresh.

import { call } from "./api.js";
import { element, find, setNotice, setText, showList } from "./dom.js";
import { jobDetail } from "./job.js";
import { Watch } from "./watch.js";
import { duration, jobStatus, kind, moment } from "./words.js";

const SECONDS = 2;
const PAGE = 20;

/** The view: `show(id)` shows one job, `show()` the list. */
export function jobsView() {
  // The cursor of each page up to the current one; null is the newest job.
  let starts = [null];
  let next = null;
  const detail = jobDetail();
  const watch = new Watch(look, (words) => setNotice(find("jobs-trouble"), words), SECONDS);

  async function look(signal) {
    const query = new URLSearchParams({ limit: PAGE });
    for (const name of ["status", "kind"]) if (find(`jobs-${name}`).value) query.set(name, find(`jobs-${name}`).value);
    if (starts.at(-1) !== null) query.set("after", starts.at(-1));
    const answer = await call("GET", `/jobs?${query}`, { signal });
    next = answer.next;
    showList(find("jobs-rows"), answer.data, (job) => job.id, row, showRow);
    find("jobs-empty").hidden = answer.data.length > 0;
    // A page may be empty although more follow: the server limits how many jobs it reads for one page.
    setText(find("jobs-empty"), next === null ? "No matching jobs." : "No matching jobs on this page; older pages may have some.");
    find("jobs-newer").disabled = starts.length === 1;
    find("jobs-older").disabled = next === null;
    find("jobs-pages").hidden = starts.length === 1 && next === null;
  }

  function turn(change) {
    change();
    watch.now();
  }

  for (const name of ["jobs-status", "jobs-kind"]) {
    find(name).addEventListener("change", () => turn(() => {
      starts = [null];
    }));
  }
  find("jobs-older").addEventListener("click", () => turn(() => next !== null && starts.push(next)));
  find("jobs-newer").addEventListener("click", () => turn(() => starts.length > 1 && starts.pop()));

  function hide() {
    watch.stop();
    detail.hide();
  }

  function show(id) {
    hide();
    find("jobs-index").hidden = id !== undefined;
    find("job").hidden = id === undefined;
    if (id === undefined) watch.start();
    else detail.show(id);
  }

  return { show, hide };
}

function row(job) {
  const link = element("a", { href: `#jobs/${job.id}`, title: job.id }, kind(job.kind));
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, link),
    element("td", {}, element("span", { class: "badge" })),
    element("td", { class: "wide" }, job.model ?? ""),
    element("td", { class: "time" }, moment(job.created_at)),
    element("td", { class: "number took" }),
    element("td", { class: "number wide attempts-count" }),
  );
}

function showRow(node, job) {
  const [word, tone] = jobStatus(job);
  const badge = node.querySelector(".badge");
  setText(badge, word);
  badge.dataset.tone = tone;
  setText(node.querySelector(".took"), duration(job.timings.total));
  setText(node.querySelector(".attempts-count"), String(job.attempts.length));
}
