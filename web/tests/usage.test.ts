import assert from "node:assert/strict";
import { test } from "node:test";
import { sumBy } from "../src/usage/sums.ts";
import { dayBefore, isShort, limitName, limitText, shownLimits } from "../src/usage/limits.ts";

test("limits that are nearly used come first, and what is neither limited nor used is left out", () => {
  const limits = { documents: 10, collections: 4, stored_bytes: 0, sessions: 0, streams: 8 };
  const used = { documents: 1, collections: 4, stored_bytes: 2_000_000, sessions: 0 };
  assert.deepEqual(shownLimits({ limits, used }).map(({ name }) => name), ["collections", "documents", "stored_bytes", "streams"]);
  assert.equal(isShort(8, 10), true);
  assert.equal(isShort(7, 10), false);
});

test("limits are named and counted in words", () => {
  assert.equal(limitName("tokens_per_day"), "Tokens today");
  assert.equal(limitName("end_user_queued_jobs"), "Each end user: queued jobs");
  assert.equal(limitText("stored_bytes", 2_000_000), "2.0 MB");
  assert.equal(limitText("documents", 2_000), "2,000");
  assert.equal(dayBefore(29, Date.UTC(2026, 0, 31, 23)), "2026-01-02");
});

test("entries are added up by one of their fields", () => {
  const entries = [["a", "ada", 1], ["b", "ada", 2], ["a", "bob", 4]].map(([model, owner, jobs]) => ({ model, owner, jobs, prompt_tokens: 10 })) as any;
  assert.deepEqual(sumBy(entries, "model").map(({ model, jobs, prompt_tokens }) => [model, jobs, prompt_tokens]), [["a", 5, 20], ["b", 2, 10]]);
  assert.deepEqual(sumBy(entries, "owner").map(({ owner, jobs }) => [owner, jobs]), [["ada", 3], ["bob", 4]]);
  assert.equal(entries[0].jobs, 1);
});
