import assert from "node:assert/strict";
import { test } from "node:test";
import { lanes } from "../src/jobs/lanes.ts";
import type { Job } from "../src/types.ts";

const attempt = (number: number, queue: string, outcome: string | null, error: string | null = null) =>
  ({ number, worker: `worker-${number}`, queue, started_at: number * 10, ended_at: outcome === null ? null : number * 10 + 5, outcome, error });
const job = (...attempts: object[]) => ({ created_at: 0, ended_at: null, status: "in_progress", timings: { first_token: null }, attempts }) as unknown as Job;

test("an attempt says why another one follows, which is a retry only after an error", () => {
  const list = lanes(job(attempt(1, "io", "handed_over"), attempt(2, "gpu.m", "released"), attempt(3, "gpu.m", "retried", "out_of_memory"), attempt(4, "gpu.m", "lost"), attempt(5, "gpu.m", null)), [], 60);
  assert.deepEqual(list.map(({ note }) => note), [
    "Done, and handed over to the next step",
    "Returned to the queue, because its worker stopped or a service was away",
    "Tried again after an error: Out of memory",
    "Lost, because its worker died",
    "",
  ]);
  assert.deepEqual(list.map(({ spans }) => spans.map(({ phase }) => phase)), [["queue", "search"], ["queue", "prefill"], ["queue", "prefill"], ["queue", "lost"], ["queue", "prefill"]]);
});

test("writing begins with the first text of an attempt, and a job that was returned to its queue waits again", () => {
  const returned = { ...job(attempt(1, "gpu.m", "released")), status: "queued" } as Job;
  const list = lanes(returned, [{ id: 1, type: "delta", data: { attempt: 1, at: 12 } }], 20);
  assert.deepEqual(list.map(({ title, spans }) => [title, spans.map(({ phase, from, to }) => [phase, from, to])]), [
    ["Attempt 1", [["queue", 0, 10], ["prefill", 10, 12], ["write", 12, 15]]],
    ["Waiting again", [["queue", 15, 20]]],
  ]);
});
