import assert from "node:assert/strict";
import { test } from "node:test";
import { hookEvents, hookState, worstFirst } from "../src/operations/hooks.ts";
import { sparkPaths } from "../src/ui/spark_paths.ts";
import { description, latest, perMinute } from "../src/operations/series.ts";

test("the newest value may be missing for a moment, an older one is not the newest", () => {
  assert.equal(latest([1, 2, 3]), 3);
  assert.equal(latest([1, 2, null]), 2);
  assert.equal(latest([1, null, null]), null);
  assert.equal(latest([]), null);
});

test("a rate is that of the last minute, and gaps stay gaps", () => {
  assert.deepEqual(perMinute([1, 1, 1, 1, 1, 1, 7], 10), [1, 2, 3, 4, 5, 6, 12]);
  assert.deepEqual(perMinute([null, 2, null, 4], 10), [null, 2, null, 6]);
  assert.deepEqual(perMinute([null, 10, 1], 300), [null, 2, 0.2]);
});

test("a chart is described with what is missing in it", () => {
  assert.equal(description("Queued", [0, 4, null, 2], 10), "Queued, last 40 s: lowest 0, highest 4, last 2; nothing was recorded for 10 s");
  assert.equal(description("Queued", [null, null], 10), "Queued, last 20 s: nothing was recorded");
});

test("webhooks that are disabled or fail come first", () => {
  const hooks = ["fine", "failing", "off", "unused"].map((id) => ({ id, enabled: id !== "off" })) as any;
  const deliveries = [["fine", "delivered"], ["failing", "failed"], ["failing", "delivered"]].map(([webhook, status]) => ({ webhook, status, attempts: [{ started_at: 5 }] })) as any;
  assert.deepEqual(worstFirst(hooks, deliveries).map(({ hook, all, good }) => [hook.id, all, good]), [["off", 0, 0], ["failing", 2, 1], ["fine", 1, 1], ["unused", 0, 0]]);
});

test("a webhook is failing since its first try after the last delivery that arrived", () => {
  const hook = { id: "a", enabled: true } as any;
  const delivery = (status: string, at: number, outcome: string | null = status === "delivered" ? "delivered" : "failed") =>
    ({ webhook: "a", status, created_at: at, ended_at: status === "pending" ? null : at, attempts: [{ started_at: at, outcome }] }) as any;
  const state = (...deliveries: any[]) => hookState(worstFirst([hook], deliveries)[0]!, 1000);
  assert.deepEqual(state(delivery("pending", 940), delivery("failed", 880), delivery("delivered", 700), delivery("failed", 600)), { words: "Failing for 2 min", amiss: true });
  assert.deepEqual(state(delivery("delivered", 940), delivery("failed", 880)), { words: "Enabled", amiss: false });
  assert.deepEqual(state(delivery("pending", 999, null)), { words: "Enabled", amiss: false }, "a first try that runs has not failed");
  assert.deepEqual(hookState(worstFirst([{ ...hook, enabled: false }], [])[0]!, 1000), { words: "Disabled", amiss: true });
});

test("the events of a webhook are a sentence", () => {
  assert.equal(hookEvents({ events: ["job.failed", "job.expired"], job_kinds: ["request_batch"] }), "When a job fails or expires. Kinds: batch of requests.");
  assert.match(hookEvents({ events: ["job.completed", "job.failed", "job.cancelled", "job.expired"], job_kinds: ["ingest"] }), /^When a job ends\./);
  // Four events, as there are four ways to end, but job.started is not one of them.
  assert.match(hookEvents({ events: ["job.started", "job.completed", "job.failed", "job.cancelled"], job_kinds: ["ingest"] }), /^When a job starts, completes, fails, or is cancelled\./);
  assert.match(hookEvents({ events: ["job.started", "job.completed", "job.failed", "job.cancelled", "job.expired"], job_kinds: ["ingest"] }), /^When a job starts or ends\./);
  assert.match(hookEvents({ events: ["batch.completed", "batch.failed"], job_kinds: ["ingest"] }), /^On batch\.completed and batch\.failed\. Kinds/);
});

test("a chart has gaps where nothing was recorded, and a dot between two gaps", () => {
  const { line, area, dots, width } = sparkPaths([0, 2, null, 1, null, null, 2, 2]);
  assert.equal(line, "M0 100L1 0M6 0L7 0");
  assert.equal(area, "M0 100L0 100L1 0L1 100ZM6 100L6 0L7 0L7 100Z");
  assert.equal(dots, "M3 50h0");
  assert.equal(width, 7);
  assert.equal(sparkPaths([]).line, "");
});
