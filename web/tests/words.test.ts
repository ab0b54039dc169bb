import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, count, documentReason, duration, jobKind, jobReason, ordinal, pageOf, readable, roughly } from "../src/words.ts";

test("counts, ordinals and durations are good English", () => {
  assert.equal(count(1, "attempt"), "1 attempt");
  assert.equal(count(2_000, "attempt"), "2,000 attempts");
  assert.deepEqual([1, 2, 3, 11, 21, 102].map(ordinal), ["1st", "2nd", "3rd", "11th", "21st", "102nd"]);
  assert.deepEqual([0.034, 2.345, 42.4, 59.7, 92, 3600, 7260, 200_000].map(duration), ["34 ms", "2.3 s", "42 s", "1 min", "1 min 32 s", "1 h", "2 h 1 min", "2 days"]);
  assert.equal(roughly(92), "about 2 min");
  assert.equal(roughly(21), "about 20 s");
});

test("sizes and times are those that people read", () => {
  assert.equal(bytes(1_500_000), "1.5 MB");
  assert.equal(readable("The file exceeds 1000000 bytes."), "The file exceeds 1.0 MB.");
  assert.equal(readable("20000 tokens on gpu0@host/24581"), "20,000 tokens on gpu0@host/24581");
  assert.equal(ago(100, 102), "now");
  assert.equal(ago(100, 400), "5 min. ago");
});

test("reasons have no words of the API", () => {
  assert.equal(documentReason("encrypted", "Upload it again with the field `password`."), "The file is protected by a password.");
  assert.match(documentReason("failed", "pypdf: PdfStreamError"), /damaged/);
  assert.match(jobReason({ kind: "ingest", error: { code: "failed", message: "The file could not be read: pypdfium2" } }), /damaged/);
  assert.equal(jobReason({ kind: "generate", error: { code: "timeout", message: "" } }), "timeout");
  assert.equal(jobReason({ kind: "generate", error: null }), "");
  assert.deepEqual(["request_batch", "something_new"].map(jobKind), ["Batch of requests", "Something new"]);
});

test("a passage says where it is, and that OCR has read it", () => {
  assert.equal(pageOf({ page: 3, source: "text" }), "page 3");
  assert.equal(pageOf({ page: 3, source: "ocr" }), "page 3, read by OCR");
  assert.equal(pageOf({ page: 3 }), "page 3");
});
