import assert from "node:assert/strict";
import { test } from "node:test";
import { keyState, limitsOf, OWNER_SCOPES, readLimits, rightsOf, SCOPES } from "../src/operations/rights.ts";

test("rights are said in words", () => {
  assert.deepEqual(rightsOf({ scopes: [...SCOPES].reverse(), models: null, collections: null }), ["All scopes"]);
  assert.deepEqual(rightsOf({ scopes: OWNER_SCOPES, models: ["a", "b"], collections: [] }), ["Everything that an owner may do", "Only the models: a, b", "Only the collections: none"]);
  assert.deepEqual(rightsOf({ scopes: ["search"], models: null, collections: ["c"] }), ["Scopes: search", "Only the collections: c"]);
});

test("a key is active until it expires or is revoked", () => {
  assert.equal(keyState({ revoked_at: null, expires_at: 10 }, 9), "active");
  assert.equal(keyState({ revoked_at: null, expires_at: 10 }, 10), "expired");
  assert.equal(keyState({ revoked_at: 1, expires_at: null }, 9), "revoked");
});

test("limits of a key are said in words", () => {
  assert.equal(limitsOf({}), "");
  assert.equal(limitsOf({ tokens_per_month: 2_000_000, tokens_per_minute: 500 }), "Tokens at most: 500 a minute, 2,000,000 a month");
});

test("limits are read from a form", () => {
  const form = new FormData();
  form.set("tokens_per_minute", " 1,000 ");
  form.set("tokens_per_day", "");
  assert.deepEqual(readLimits(form), { tokens_per_minute: 1000, tokens_per_day: null, tokens_per_month: null });
  for (const text of ["-1", "1.5", "many", "1e3", "9".repeat(16)]) {
    form.set("tokens_per_day", text);
    assert.match(String(readLimits(form)), /^Tokens a day: /, text);
  }
});
