// One job: its state, its result and its attempts.

import { ApiError, call, followJob, sentence } from "./api.js";
import { citationList, writeAnswer } from "./citations.js";
import { confirmed, element, find, setNotice, setText } from "./dom.js";
import { passageItem } from "./search.js";
import { duration, jobStatus, kind, moment } from "./words.js";

/** `show(id)` follows a job until it has ended or `hide()` is called. */
export function jobDetail() {
  let following = new AbortController();
  let id = null;
  let resultOf = null;
  const say = (words) => setNotice(find("job-trouble"), words);

  async function show(jobId) {
    hide();
    following = new AbortController();
    const { signal } = following;
    id = jobId;
    resultOf = null;
    say(null);
    find("job-view").hidden = true;
    setText(find("job-heading"), "Job");
    find("job-heading").focus();
    try {
      await followJob(encodeURIComponent(id), { signal, onChange: showJob, onTrouble: (error) => say(error?.message) });
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      say(error.message);
      find("job-view").hidden = true;
    }
  }

  function hide() {
    following.abort();
  }

  function showJob(job) {
    const [word, tone] = jobStatus(job);
    const ended = job.ended_at !== null;
    find("job-view").hidden = false;
    setText(find("job-heading"), `${kind(job.kind)} job`);
    setText(find("job-status"), word);
    find("job-status").dataset.tone = tone;
    find("job-cancel").hidden = ended;
    find("job-cancel").disabled = job.cancel_requested_at !== null;
    find("job-delete").hidden = !ended;
    find("job-facts").replaceChildren(...facts(job).flatMap(([name, value]) => [
      element("dt", {}, name), element("dd", {}, value),
    ]));
    setNotice(find("job-error"), job.error === null ? null : `${sentence(job.error.message)} (${job.error.code})`);
    showResult(job);
    find("job-attempts").hidden = job.attempts.length === 0;
    find("job-attempts-list").replaceChildren(...job.attempts.map(attemptItem));
  }

  function showResult(job) {
    find("job-result").hidden = job.result === null;
    // A result never changes. Rendering it again would close the quotes that the user opened.
    if (job.result === null || resultOf === job.id) return;
    resultOf = job.id;
    find("job-result-body").replaceChildren(...result(job));
  }

  find("job-cancel").addEventListener("click", () => attempt(() => call("POST", `/jobs/${id}/cancel`), (job) => {
    showJob(job);
    find("job-heading").focus();
  }));
  find("job-delete").addEventListener("click", async () => {
    if (!(await confirmed("Delete this job with its result?", "Delete"))) return;
    attempt(() => call("DELETE", `/jobs/${id}`), () => {
      location.hash = "#jobs";
    });
  });

  async function attempt(action, then) {
    try {
      then(await action());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(error.message);
    }
  }

  return { show, hide };
}

function facts(job) {
  const entries = [
    ["Id", element("code", {}, job.id)],
    ["Model", job.model],
    ["Created", moment(job.created_at)],
    ["Started", moment(job.started_at)],
    ["Ended", moment(job.ended_at)],
    ["Waited", duration(job.timings.queued)],
    ["First token after", duration(job.timings.first_token)],
    ["Time", duration(job.timings.total)],
    ["Queue position", job.queue_position],
    ["Waiting for", job.waiting_for?.replaceAll("_", " ")],
    ["Not before", moment(job.not_before)],
    ["Progress", job.ended_at === null && job.progress && `${job.progress.phase}: ${job.progress.done} of ${job.progress.total} ${job.progress.unit}`],
    ["Priority", job.priority],
    ["Session", job.session && element("code", {}, job.session)],
    ...Object.entries(job.metadata).map(([name, value]) => [name, value]),
  ];
  return entries.filter(([, value]) => value || value === 0);
}

function result(job) {
  if (job.kind === "generate") {
    const { text, citations = [], usage, finish_reason: reason } = job.result;
    const answer = element("p", { class: "answer-text" });
    const sources = citationList(citations);
    writeAnswer(answer, text, citations, sources);
    const used = `${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out · ended by ${reason}`;
    return [answer, ...(citations.length > 0 ? [sources] : []), element("p", { class: "hint" }, used)];
  }
  if (job.kind === "search") return [element("ol", { class: "bare hits" }, ...job.result.hits.map(passageItem))];
  return [element("pre", { tabindex: "0" }, JSON.stringify(job.result, null, 2))];
}

function attemptItem(attempt) {
  const took = attempt.ended_at === null ? "" : ` after ${duration(attempt.ended_at - attempt.started_at)}`;
  const outcome = attempt.outcome === null ? "running" : `${attempt.outcome.replaceAll("_", " ")}${took}`;
  return element(
    "li",
    {},
    element("span", { class: "number" }, `${attempt.number}.`),
    element("span", {}, element("strong", {}, outcome), ` · queue ${attempt.queue} · since ${moment(attempt.started_at)}`),
    attempt.error ? element("span", { class: "reason" }, attempt.error) : null,
    element("span", { class: "hint" }, attempt.worker),
  );
}
