// One exchange on the screen: what was asked, how far the answer is, and the answer with its sources.

import { generating } from "./api.js";
import { citationList, writeAnswer } from "./citations.js";
import { element, setText } from "./dom.js";
import { count, duration } from "./words.js";

export class Turn {
  #status = element("p", { class: "status" });
  #body = element("div", { class: "said answer" }, this.#status);

  constructor(text) {
    this.text = text;
    this.node = element("article", { class: "turn" }, element("p", { class: "said question" }, text), this.#body);
  }

  /** How far the job of the answer is. */
  underWay(job) {
    this.waiting(standing(job));
  }

  waiting(words) {
    this.#body.dataset.state = "waiting";
    if (!this.#status.isConnected) this.#body.replaceChildren(this.#status);
    setText(this.#status, words);
  }

  /** The answer; its job is null for one whose job is no longer known. */
  answered(text, job) {
    delete this.#body.dataset.state;
    const answer = element("p", { class: "answer-text" });
    const citations = job?.result.citations ?? [];
    const sources = citationList(citations);
    writeAnswer(answer, text || "(The model answered with no words.)", citations, sources);
    this.#body.replaceChildren(answer);
    if (citations.length > 0) this.#body.append(sources);
    if (job !== null) this.#body.append(element("p", { class: "hint" }, facts(job)));
  }

  /** There is no answer; `again` is called when the person wants to ask once more. */
  failed(words, again, state = "failed") {
    this.#body.dataset.state = state;
    this.#body.replaceChildren(
      element("p", { class: "status" }, words),
      element("button", { type: "button", class: "plain small", onclick: again }, "Ask again"),
    );
  }
}

/** Why a job that has ended has no answer. */
export function noAnswer(job) {
  if (job.status === "cancelled") return "Stopped.";
  return job.error?.message ?? `The job is ${job.status}.`;
}

function standing(job) {
  if (job.cancel_requested_at !== null) return "Stopping…";
  if (job.status === "queued") {
    if (job.queue_position === null || job.queue_position === undefined) return "Queued…";
    return job.queue_position === 1 ? "Queued, next in line…" : `Queued, number ${job.queue_position} in line…`;
  }
  return generating(job) ? "Writing the answer…" : "Searching the documents…";
}

function facts(job) {
  const { usage, finish_reason: reason } = job.result;
  const parts = [job.model, count(usage.completion_tokens, "token"), duration(job.timings.total)];
  if (reason === "length") parts.push("cut off at the length limit");
  return parts.join(" · ");
}
