// Calls of the API, their errors, and the event stream of a job.

import { createParser } from "eventsource-parser";
import { credentials, dropEarlyAnswers, takeEarlyAnswer } from "./early.ts";
import { identity, keyRefused } from "./key.ts";

/** An error of the API; its status is 0 if the server did not answer. */
export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  readonly answer: any;
  readonly retryAfter: number | null;

  constructor(message: string, code = "unreachable", status = 0, answer: any = null, retryAfter: number | null = null) {
    super(message);
    this.code = code;
    this.status = status;
    this.answer = answer;
    this.retryAfter = retryAfter;
  }

  /** Whether the same call may succeed later. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 429 || (this.status >= 500 && this.code !== "job_failed");
  }
}

export interface CallOptions {
  json?: unknown;
  form?: FormData;
  prefer?: string;
  signal?: AbortSignal;
  headers?: Record<string, string>;
}

const unreachable = () => new ApiError("The server does not respond.");

async function send(method: string, path: string, { json, form, prefer, signal, headers = {} }: CallOptions): Promise<Response> {
  const sent: Record<string, string> = { ...credentials(), ...headers };
  if (json !== undefined) sent["Content-Type"] = "application/json";
  if (prefer !== undefined) sent["Prefer"] = prefer;
  // A change makes what was read before it out of date.
  if (method !== "GET") dropEarlyAnswers();
  let response: Response;
  try {
    response = await (takeEarlyAnswer(path) ?? fetch(path, { method, headers: sent, signal, body: form ?? (json === undefined ? undefined : JSON.stringify(json)) }));
    signal?.throwIfAborted();
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw unreachable();
  }
  return response;
}

/** Makes a call and returns its JSON. Throws ApiError, or AbortError if the signal aborts it. */
export async function call<T = any>(method: string, path: string, options: CallOptions = {}): Promise<T> {
  const asked = identity.value;
  const response = await send(method, path, options);
  return outcome(response.status, await response.text().catch(unreadable), response.headers.get("Retry-After"), asked) as T;
}

/** The JSON of a GET and its ETag, or null while it is the same as the one with this ETag. */
export async function callIfChanged<T = any>(path: string, etag: string | null, signal?: AbortSignal): Promise<{ answer: T; etag: string | null } | null> {
  const asked = identity.value;
  const response = await send("GET", path, { signal, headers: etag === null ? {} : { "If-None-Match": etag } });
  if (response.status === 304) return null;
  const answer = outcome(response.status, await response.text().catch(unreadable), response.headers.get("Retry-After"), asked) as T;
  return { answer, etag: response.headers.get("ETag") };
}

function unreadable(error: Error): never {
  if (error.name === "AbortError") throw error;
  throw unreachable();
}

/** The bytes of a file that needs the key, such as the picture of a page. */
export async function fetchBlob(path: string, signal?: AbortSignal): Promise<Blob> {
  const asked = identity.value;
  const response = await send("GET", path, { signal });
  if (!response.ok) outcome(response.status, await response.text(), null, asked);
  return response.blob();
}

/** The JSON of an answer, to a request of the key that was in use at `asked`. Throws ApiError. */
export function outcome(status: number, text: string, retryAfter: string | null = null, asked = identity.value): unknown {
  let answer: any;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiError(`The server returned status ${status} without JSON.`, "not_json", status);
  }
  if (status >= 200 && status < 300) return answer;
  const { code = "unknown", message = `The server returned status ${status}.` } = answer.error ?? {};
  // A late answer to a request without the key must not sign out a user who has signed in since.
  if (status === 401 && asked === identity.value) keyRefused(code);
  throw new ApiError(sentence(message), code, status, answer, retryAfter === null ? null : Number(retryAfter) || null);
}

/** A message as a sentence: some messages of the API start with a field name and have no period. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

export interface JobEvent {
  id: number;
  type: string;
  data: any;
}

/**
 * Reads the events of a job after event `after` until the job has ended, and reconnects after every interruption.
 * EventSource cannot send an Authorization header, so the stream is read with fetch.
 */
export async function followEvents(
  job: string,
  { after = 0, signal, onEvent, onTrouble = () => {} }: {
    after?: number;
    signal: AbortSignal;
    onEvent: (event: JobEvent) => void;
    onTrouble?: (error: ApiError | null) => void;
  },
): Promise<void> {
  let last = after;
  let ended = false;
  for (let failures = 0; !ended; ) {
    try {
      const response = await send("GET", `/jobs/${job}/events?after=${last}`, { signal });
      if (response.status === 204) return;
      if (!response.ok) outcome(response.status, await response.text());
      const parser = createParser({
        onEvent: ({ id, event, data }) => {
          if (id !== undefined) last = Number(id);
          if (event === "ended") ended = true;
          onEvent({ id: last, type: event ?? "message", data: JSON.parse(data) });
        },
      });
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (failures > 0) onTrouble(null);
        failures = 0;
        parser.feed(value);
      }
    } catch (error) {
      if (signal.aborted) throw error;
      const problem = error instanceof ApiError ? error : unreachable();
      if (!problem.temporary) throw problem;
      onTrouble(problem);
      failures += 1;
    }
    if (!ended) await pause(Math.min(8, 2 ** failures / 2), signal);
  }
}

export function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
