import assert from "node:assert/strict";
import { test } from "node:test";
import { keyState, OWNER_SCOPES, rightsOf, SCOPES } from "../src/operations/rights.ts";

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
