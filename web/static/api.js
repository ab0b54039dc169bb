// HTTP calls and their errors.

import { credentials } from "./key.js";

const RUNNING_WAIT = 20;
const QUEUED_WAIT = 1;
const RETRY_PAUSES = [1, 2, 4, 8];

/** An error of the API, or status 0 if the server did not answer. */
export class ApiError extends Error {
  constructor(message, { code = "unreachable", status = 0, answer = null } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.answer = answer;
  }

  /** Whether the same call may succeed later. */
  get temporary() {
    return this.status === 0 || this.status === 429 || (this.status >= 500 && this.code !== "job_failed");
  }
}

export const unreachable = () => new ApiError("The server does not respond.");

/** The JSON of a successful answer. Throws ApiError otherwise, and asks the page for a key after a 401. */
export function outcome(status, text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiError(`The server returned status ${status} without JSON.`, { code: "not_json", status });
  }
  if (status >= 200 && status < 300) return answer;
  const { code = "unknown", message = `The server returned status ${status}.` } = answer.error ?? {};
  if (status === 401) document.dispatchEvent(new Event("key-wanted"));
  throw new ApiError(sentence(message), { code, status, answer });
}

/** Makes a call and returns its JSON. Throws ApiError, or AbortError if the signal aborts it. */
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

/** Polls a job until it has ended, also through outages. `onChange` receives the job, `onTrouble` an error or null. */
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
      // While the model generates, only the end matters. Before that, the queue position and the progress change.
      wait = job.status === "in_progress" && generating(job) ? RUNNING_WAIT : QUEUED_WAIT;
    } catch (error) {
      if (!(error instanceof ApiError) || !error.temporary) throw error;
      onTrouble(error);
      await pause(RETRY_PAUSES[Math.min(failures, RETRY_PAUSES.length - 1)], signal);
      failures += 1;
      wait = 0;
    }
  }
}

/** Whether the model is generating, as opposed to passages being retrieved. */
export const generating = (job) => job.attempts.at(-1)?.queue.startsWith("gpu.") ?? false;

/** A message as a sentence: some messages of the API start with a field name and have no period. */
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
