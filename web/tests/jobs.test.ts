import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

const pages = [
  { data: [], has_more: true, next: "job_2" },
  { data: [], has_more: true, next: "job_1" },
  { data: [{ id: "job_0" }], has_more: false, next: null },
];
const asked: string[] = [];
Object.assign(globalThis, {
  location: { pathname: "/", search: "" },
  sessionStorage: { getItem: () => null },
  BroadcastChannel: class { postMessage() {} },
  fetch: async (path: string) => {
    asked.push(path);
    return new Response(JSON.stringify(pages[asked.length - 1]), { status: 200 });
  },
});
const { loadJobs } = await import("../src/jobs/server.ts");
// What the page asks for early is not of these calls.
asked.splice(0);

afterEach(() => asked.splice(0));

test("an empty page is not the end while older jobs may match", async () => {
  const page = await loadJobs({ status: "failed" }, null, new AbortController().signal);
  assert.deepEqual(page, { jobs: [{ id: "job_0" }], next: null, etag: null });
  assert.deepEqual(asked.map((path) => new URLSearchParams(path.split("?")[1]).get("after")), [null, "job_2", "job_1"]);
});

test("a filter of the address becomes one of the API", async () => {
  const { asSelection, parseMetadata, readFilter, resolveTimes, metadataLine } = await import("../src/jobs/filter.ts");
  const filter = readFilter(new URLSearchParams("status=failed&within=1h&metadata.team=search&tab=output&q="));
  assert.deepEqual(filter, { status: "failed", within: "1h", "metadata.team": "search" });
  assert.deepEqual(resolveTimes(filter, 10_003), { status: "failed", "metadata.team": "search", since: "6400" });
  assert.deepEqual(asSelection(filter, 10_003), { status: "failed", since: 6400, metadata: { team: "search" } });
  assert.deepEqual(resolveTimes({ since: "nonsense", until: "2026-01-31T12:00Z" }), { until: "1769860800" });
  assert.equal(metadataLine(filter), "team=search");
  assert.deepEqual(parseMetadata(" team=search , run = 3=4 "), { team: "search", run: "3=4" });
  assert.equal(parseMetadata("team"), "“team” is not name=value.");
  assert.equal(parseMetadata("a=1,b=2,c=3,d=4,e=5"), "At most 4 names.");
});

test("a command asks the same again, and nothing that the call does not have", async () => {
  const { asCurl } = await import("../src/jobs/curl.ts");
  const place = { server: "http://host", signedIn: true };
  const command = asCurl({ model: "m", message: "It's open?", collection: "handbook", retrieval: { top_k: 3, filter: null } }, place)!;
  assert.match(command, /^curl http:\/\/host\/generate .*-H 'Authorization: Bearer YOUR_KEY' -d '/);
  assert.ok(command.includes("It'\\''s open?"));
  const body = JSON.parse(command.split(" -d ")[1]!.slice(1, -1).replaceAll("'\\''", "'"));
  assert.deepEqual(body, { model: "m", messages: [{ role: "user", content: "It's open?" }], collection: { name: "handbook", top_k: 3 } });
  assert.equal(asCurl({ messages: [], tools: [] }, place), null);
  assert.ok(!asCurl({ prompt: "x" }, { ...place, signedIn: false })!.includes("Authorization"));
});

test("events are described in words, and unknown fields by their names", async () => {
  const { eventText } = await import("../src/jobs/event_text.ts");
  assert.equal(eventText("queued", { at: 1, queue: "io" }), "in io");
  assert.equal(eventText("started", { at: 1, attempt: 1, worker: "io@host" }), "on io@host");
  assert.equal(eventText("progress", { at: 1, attempt: 1, phase: "retrieving", done: 0, total: 0, unit: "passages" }), "Retrieving");
  assert.equal(eventText("progress", { at: 1, attempt: 1, phase: "embedding", done: 1, total: 1200, unit: "chunks" }), "Embedding: 1 of 1,200 chunks");
  assert.equal(eventText("requeued", { at: 1, attempt: 1, why: "handed_over", delay_ms: 0 }), "for its next step");
  assert.equal(eventText("requeued", { at: 1, attempt: 1, why: "released", delay_ms: 2000 }), "as its worker stopped or a service was away, not before 2.0 s later");
  assert.equal(eventText("requeued", { at: 1, attempt: 1, why: "model_unavailable", delay_ms: 0 }), "after an error: model_unavailable");
  assert.equal(eventText("ended", { at: 1, status: "failed" }), "failed");
  assert.equal(eventText("odd", { at: 1, some_field: "x", empty: "" }), "some field: x");
});
