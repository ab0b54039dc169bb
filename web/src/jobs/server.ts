// The calls about jobs, and which of the newer ones this server has.

import { ApiError, call } from "../api.ts";
import { features } from "../features.ts";
import type { Job, List } from "../types.ts";

export const FILTERS = ["status", "kind", "model", "collection", "batch", "q"] as const;
export type Filter = Partial<Record<(typeof FILTERS)[number], string>>;

export interface Counts {
  total: number;
  status: Record<string, number>;
  kind: Record<string, number>;
  [other: string]: unknown;
}


/** How many jobs each state has within the other filters. */
export async function loadCounts(filter: Filter, signal_: AbortSignal): Promise<Counts | null> {
  if (!features.counts) return null;
  const search = new URLSearchParams();
  for (const name of ["kind", "model", "collection"] as const) if (filter[name]) search.set(name, filter[name]!);
  return call<Counts>("GET", `/jobs/counts?${search}`, { signal: signal_ });
}

const PAGE = 100;
/** How many requests are made for a filter that matches few jobs. */
const MOST_REQUESTS = 50;

export interface JobPage {
  jobs: Job[];
  next: string | null;
}

/** The next jobs that match a filter. A page may be short or empty although older jobs match, so the search goes on. */
export async function loadJobs(filter: Filter, after: string | null, signal_: AbortSignal, limit = PAGE): Promise<JobPage> {
  const jobs: Job[] = [];
  let next = after;
  for (let request = 0; request < MOST_REQUESTS; request += 1) {
    const search = new URLSearchParams({ limit: String(limit) });
    for (const [name, value] of Object.entries(filter)) if (value) search.set(name, value);
    if (next !== null) search.set("after", next);
    const page = await call<List<Job>>("GET", `/jobs?${search}`, { signal: signal_ });
    jobs.push(...page.data);
    next = page.has_more ? page.next : null;
    if (next === null || jobs.length >= limit / 2) break;
  }
  return { jobs, next };
}

export interface Outcome {
  done: number;
  refused: string[];
}

/** Does the same to some jobs, a few at a time. */
export async function forEachJob(jobs: Job[], action: (job: Job) => Promise<unknown>): Promise<Outcome> {
  const outcome: Outcome = { done: 0, refused: [] };
  const left = [...jobs];
  const work = async () => {
    for (let job = left.shift(); job !== undefined; job = left.shift()) {
      try {
        await action(job);
        outcome.done += 1;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        outcome.refused.push(error.message);
      }
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  return outcome;
}
