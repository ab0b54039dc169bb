// The calls about jobs.

import { ApiError, call } from "../api.ts";
import type { Job, List } from "../types.ts";

export const FILTERS = ["status", "kind", "model", "batch"] as const;
export type Filter = Partial<Record<(typeof FILTERS)[number], string>>;

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
