// The lanes of a job's timeline: one for each attempt, with its wait, what it did, and how it ended.

import type { JobEvent } from "../api.ts";
import type { Job } from "../types.ts";
import { title } from "../words.ts";

export interface Span {
  phase: "queue" | "search" | "prefill" | "write" | "lost";
  from: number;
  to: number;
}
export const PHASES: Record<Span["phase"], string> = { queue: "Queue", search: "Search or reading", prefill: "Prefill", write: "Writing", lost: "Lost attempt" };

export interface Lane {
  title: string;
  worker: string;
  /** Why another attempt follows, which is not always a retry. */
  note: string;
  spans: Span[];
}

type Attempt = Job["attempts"][number];

function noteOf({ outcome, error }: Attempt): string {
  if (outcome === "handed_over") return "Done, and handed over to the next step";
  if (outcome === "released") return "Returned to the queue, because its worker stopped or a service was away";
  if (outcome === "retried") return error ? `Tried again after an error: ${title(error.replaceAll("_", " "))}` : "Tried again after an error";
  return outcome === "lost" ? "Lost, because its worker died" : "";
}

export function lanes(job: Job, events: JobEvent[], until: number): Lane[] {
  const firstText = new Map<number, number>();
  for (const { type, data } of events) if (type === "delta" && !firstText.has(data.attempt)) firstText.set(data.attempt, data.at);
  if (firstText.size === 0 && job.timings.first_token !== null && job.attempts.length > 0) firstText.set(job.attempts.at(-1)!.number, job.created_at + job.timings.first_token);
  const list: Lane[] = [];
  let before = job.created_at;
  for (const attempt of job.attempts) {
    const end = attempt.ended_at ?? until;
    const spans: Span[] = [{ phase: "queue", from: before, to: attempt.started_at }];
    const first = firstText.get(attempt.number);
    if (attempt.outcome === "lost") spans.push({ phase: "lost", from: attempt.started_at, to: end });
    else if (attempt.queue.startsWith("gpu.")) {
      const written = first !== undefined && first >= attempt.started_at && first <= end ? first : end;
      spans.push({ phase: "prefill", from: attempt.started_at, to: written }, { phase: "write", from: written, to: end });
    } else spans.push({ phase: "search", from: attempt.started_at, to: end });
    list.push({ title: `Attempt ${attempt.number}`, worker: attempt.worker, note: noteOf(attempt), spans: spans.filter(({ from, to }) => to > from) });
    before = end;
  }
  if (job.status === "queued" || job.attempts.length === 0) list.push({ title: job.attempts.length === 0 ? "Waiting" : "Waiting again", worker: "", note: "", spans: [{ phase: "queue", from: before, to: job.ended_at ?? until }] });
  return list;
}
