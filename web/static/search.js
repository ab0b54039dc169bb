// Search in a collection.

import { ApiError, call, followJob } from "./api.js";
import { element, find, setNotice } from "./dom.js";
import { count } from "./words.js";

const PASSAGES = 6;

/** The search box; `collection()` names what it searches. Returns a function that clears the results. */
export function searchBox(collection) {
  let search = new AbortController();
  const say = (words) => setNotice(find("search-words"), words);

  function clear() {
    search.abort();
    search = new AbortController();
    say(null);
    find("search-hits").replaceChildren();
  }

  find("search-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    clear();
    const { signal } = search;
    say("Searching…");
    try {
      const hits = await passages(collection(), find("search-text").value, signal);
      say(hits.length === 0 ? "Nothing found." : `${count(hits.length, "passage")}, best first:`);
      find("search-hits").replaceChildren(...hits.map(passageItem));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      say(error.message);
    }
  });
  find("search-text").addEventListener("input", (event) => {
    if (event.target.value === "") clear();
  });
  return () => {
    find("search-text").value = "";
    clear();
  };
}

/** A passage as an item of a list. */
export function passageItem(hit) {
  const where = element("p", { class: "where" }, element("strong", {}, hit.document), `, page ${hit.page}`);
  where.append(element("span", { class: "hint" }, ` · score ${hit.score.toFixed(2)}`));
  return element("li", { class: "hit" }, where, element("blockquote", {}, hit.text));
}

async function passages(collection, query, signal) {
  const path = `/collections/${encodeURIComponent(collection)}/search`;
  const answer = await call("POST", path, { json: { query, top_k: PASSAGES }, signal });
  if (answer.object === "list") return answer.data;
  // The call stopped waiting, but the job continues.
  const job = await followJob(answer.id, { signal });
  if (job.status !== "completed") throw new ApiError(job.error?.message ?? `The search ended as ${job.status}.`);
  return job.result.hits;
}
