// One turn of the chat: the question, the progress, and the answer with its citations.

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

  /** Shows the progress of the answer's job. */
  underWay(job) {
    this.waiting(progressText(job));
  }

  waiting(words) {
    this.#body.dataset.state = "waiting";
    if (!this.#status.isConnected) this.#body.replaceChildren(this.#status);
    setText(this.#status, words);
  }

  /** Shows the answer. The job is null if it no longer exists. */
  answered(text, job) {
    delete this.#body.dataset.state;
    const answer = element("p", { class: "answer-text" });
    const citations = job?.result.citations ?? [];
    const sources = citationList(citations);
    writeAnswer(answer, text || "(The model returned an empty answer.)", citations, sources);
    this.#body.replaceChildren(answer);
    if (citations.length > 0) this.#body.append(sources);
    if (job !== null) this.#body.append(element("p", { class: "hint" }, facts(job)));
  }

  /** Shows that there is no answer. `again` is called if the user asks again. */
  failed(words, again, state = "failed") {
    this.#body.dataset.state = state;
    this.#body.replaceChildren(
      element("p", { class: "status" }, words),
      element("button", { type: "button", class: "plain small", onclick: again }, "Ask again"),
    );
  }
}

/** Why an ended job has no answer. */
export function noAnswer(job) {
  if (job.status === "cancelled") return "Stopped.";
  return job.error?.message ?? `The job ended as ${job.status}.`;
}

function progressText(job) {
  if (job.cancel_requested_at !== null) return "Stopping…";
  if (job.status === "queued") {
    if (job.queue_position === null || job.queue_position === undefined) return "Queued…";
    return job.queue_position === 1 ? "Queued, next in line…" : `Queued, number ${job.queue_position} in line…`;
  }
  return generating(job) ? "Generating the answer…" : "Searching the documents…";
}

function facts(job) {
  const { usage, finish_reason: reason } = job.result;
  const parts = [job.model, count(usage.completion_tokens, "token"), duration(job.timings.total)];
  if (reason === "length") parts.push("cut off at the length limit");
  return parts.join(" · ");
}
