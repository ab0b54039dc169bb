// Calls of the HTTP API, and what they can meet. Knows nothing of what is shown.

import { credentials } from "./key.js";

const RUNNING_WAIT = 20;
const QUEUED_WAIT = 1;
const RETRY_PAUSES = [1, 2, 4, 8];

/** A refusal in the API's own words, or the server's silence (status 0). */
export class ApiError extends Error {
  constructor(message, { code = "unreachable", status = 0, answer = null } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.answer = answer;
  }

  /** Whether the same call may succeed later without anybody changing it. */
  get passing() {
    return this.status === 0 || this.status === 429 || (this.status >= 500 && this.code !== "job_failed");
  }
}

export const unreachable = () => new ApiError("The server does not answer.");

/** What an answer means. Raises ApiError unless it is a success, and tells the page when a key is wanted. */
export function outcome(status, text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiError(`The server answered with status ${status} and no JSON.`, { code: "not_json", status });
  }
  if (status >= 200 && status < 300) return answer;
  const { code = "unknown", message = `the server answered with status ${status}` } = answer.error ?? {};
  if (status === 401) document.dispatchEvent(new Event("key-wanted"));
  throw new ApiError(sentence(message), { code, status, answer });
}

/** One call; the answer's JSON. Raises ApiError, or AbortError when the signal says so. */
export async function call(method, path, { json, prefer, signal } = {}) {
  const headers = credentials();
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (prefer !== undefined) headers["Prefer"] = prefer;
  let response;
  let text;
  try {
    response = await fetch(path, { method, headers, signal, body: json === undefined ? undefined : JSON.stringify(json) });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  return outcome(response.status, text);
}

/** Looks until the job has ended, through outages too. `onChange` gets the job, `onTrouble` an error or null. */
export async function followJob(id, { signal, onChange = () => {}, onTrouble = () => {} } = {}) {
  let wait = 0;
  let failures = 0;
  for (;;) {
    try {
      const job = await call("GET", `/jobs/${id}?wait=${wait}`, { signal });
      failures = 0;
      onTrouble(null);
      onChange(job);
      if (job.ended_at !== null) return job;
      // Once a model writes the answer only the end is news; before that its place in the queue is, or its progress.
      wait = job.status === "in_progress" && generating(job) ? RUNNING_WAIT : QUEUED_WAIT;
    } catch (error) {
      if (!(error instanceof ApiError) || !error.passing) throw error;
      onTrouble(error);
      await pause(RETRY_PAUSES[Math.min(failures, RETRY_PAUSES.length - 1)], signal);
      failures += 1;
      wait = 0;
    }
  }
}

/** Whether a model has the job, rather than the search for its passages. */
export const generating = (job) => job.attempts.at(-1)?.queue.startsWith("gpu.") ?? false;

/** A message as a sentence of its own: the API's are made to stand after a name, too. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
