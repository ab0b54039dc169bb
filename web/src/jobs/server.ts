// The calls about lists of jobs.

import { call, callIfChanged } from "../api.ts";
import type { JobCounts, JobSummary, List } from "../types.ts";
import { asSelection, resolveTimes, type Filter } from "./filter.ts";

const PAGE = 100;
/** How many requests are made for a text that few jobs have. */
const MOST_REQUESTS = 50;

export interface JobPage {
  jobs: JobSummary[];
  next: string | null;
  /** Of the first page. */
  etag: string | null;
}

function address(filter: Filter, after: string | null, limit: number): string {
  const search = new URLSearchParams({ view: "summary", limit: String(limit) });
  for (const [name, value] of Object.entries(resolveTimes(filter))) if (value) search.set(name, value);
  if (after !== null) search.set("after", after);
  return `/jobs?${search}`;
}

/** The next jobs that match a filter. A page may be short or empty although older jobs match, so the search goes on. */
export async function loadJobs(filter: Filter, after: string | null, signal: AbortSignal, limit = PAGE): Promise<JobPage> {
  return (await reloadJobs(filter, after, null, signal, limit))!;
}

/** The same, or null while the first page is the one with this ETag. */
export async function reloadJobs(filter: Filter, after: string | null, etag: string | null, signal: AbortSignal, limit = PAGE): Promise<JobPage | null> {
  const first = await callIfChanged<List<JobSummary>>(address(filter, after, limit), etag, signal);
  if (first === null) return null;
  const jobs = [...first.answer.data];
  let next = first.answer.next;
  for (let request = 1; request < MOST_REQUESTS && next !== null && jobs.length < limit / 2; request += 1) {
    const page = await call<List<JobSummary>>("GET", address(filter, next, limit), { signal });
    jobs.push(...page.data);
    next = page.next;
  }
  return { jobs, next, etag: first.etag };
}

export interface Counted {
  counts: JobCounts;
  etag: string | null;
}

/** How many jobs each state has within the other filters, or `before` while nothing has changed. */
export async function loadCounts(filter: Filter, before: Counted | null, signal: AbortSignal): Promise<Counted> {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(resolveTimes(filter))) if (value && name !== "status") search.set(name, value);
  const changed = await callIfChanged<JobCounts>(`/jobs/counts?${search}`, before?.etag ?? null, signal);
  return changed === null ? before! : { counts: changed.answer, etag: changed.etag };
}

export type Action = "cancel" | "retry" | "delete";
/** The states of jobs to which each action applies. */
export const APPLIES: Record<Action, readonly string[]> = {
  cancel: ["queued", "in_progress"],
  retry: ["failed", "cancelled", "expired"],
  delete: ["completed", "failed", "cancelled", "expired"],
};

export interface Outcome {
  done: number;
  refused: number;
  /** Why the first of them was refused. */
  reason: string;
}

interface Answer {
  done: number;
  failed: { message: string }[];
  next: string | null;
}

/** How many jobs the server changes in one request. */
const ACTION_JOBS = 1000;

/** Does the same to the jobs with these ids, or to all that match a filter. */
export async function changeJobs(action: Action, jobs: string[] | Filter): Promise<Outcome> {
  const outcome: Outcome = { done: 0, refused: 0, reason: "" };
  const note = ({ done, failed }: Answer) => {
    outcome.done += done;
    outcome.refused += failed.length;
    outcome.reason ||= failed[0]?.message ?? "";
  };
  if (Array.isArray(jobs)) {
    for (let start = 0; start < jobs.length; start += ACTION_JOBS) {
      note(await call<Answer>("POST", "/jobs/actions", { json: { action, ids: jobs.slice(start, start + ACTION_JOBS) } }));
    }
    return outcome;
  }
  const filter = { ...asSelection(jobs), status: jobs.status ? [jobs.status] : APPLIES[action] };
  for (let after: string | null = null; ; ) {
    const answer: Answer = await call<Answer>("POST", "/jobs/actions", { json: { action, filter, ...(after === null ? {} : { after }) } });
    note(answer);
    after = answer.next;
    if (after === null) return outcome;
  }
}
