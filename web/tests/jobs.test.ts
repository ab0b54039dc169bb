import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

const pages = [
  { data: [], has_more: true, next: "job_2" },
  { data: [], has_more: true, next: "job_1" },
  { data: [{ id: "job_0" }], has_more: false, next: null },
];
const asked: string[] = [];
Object.assign(globalThis, {
  sessionStorage: { getItem: () => null },
  BroadcastChannel: class { postMessage() {} },
  fetch: async (path: string) => {
    asked.push(path);
    return new Response(JSON.stringify(pages[asked.length - 1]), { status: 200 });
  },
});
const { loadJobs } = await import("../src/jobs/server.ts");

afterEach(() => asked.splice(0));

test("an empty page is not the end while older jobs may match", async () => {
  const page = await loadJobs({ status: "failed" }, null, new AbortController().signal);
  assert.deepEqual(page, { jobs: [{ id: "job_0" }], next: null });
  assert.deepEqual(asked.map((path) => new URLSearchParams(path.split("?")[1]).get("after")), [null, "job_2", "job_1"]);
});
