import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFilter } from "../src/documents/filter.ts";

test("a line becomes a filter of the API", () => {
  assert.equal(parseFilter(" , "), null);
  assert.deepEqual(parseFilter("page<=3, name = a b.pdf"), { and: [{ page: { lte: 3 } }, { name: { eq: "a b.pdf" } }] });
  assert.deepEqual(parseFilter("year>=2020,draft!=true"), { and: [{ "metadata.year": { gte: 2020 } }, { "metadata.draft": { ne: true } }] });
  assert.deepEqual(parseFilter('metadata.code="0042"'), { and: [{ "metadata.code": { eq: "0042" } }] });
});

test("an invalid filter is reported", () => {
  assert.deepEqual(parseFilter("page=1, lighthouse"), { wrong: "lighthouse" });
  assert.deepEqual(parseFilter("=3"), { wrong: "=3" });
});
