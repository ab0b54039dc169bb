import assert from "node:assert/strict";
import { test } from "node:test";

const sent: [path: string, options: RequestInit][] = [];
const responses: Response[] = [];
Object.assign(globalThis, {
  location: { pathname: "/ui/webhooks", search: "" },
  sessionStorage: { getItem: () => "eh_1" },
  fetch: async (path: string, options: RequestInit) => {
    sent.push([path, options]);
    const response = new Response(path);
    responses.push(response);
    return response;
  },
});
const { dropEarlyAnswers, takeEarlyAnswer } = await import("../src/early.ts");

test("what the view of the address needs is requested with the key, and each answer is taken once", async () => {
  const headers = { Authorization: "Bearer eh_1" };
  assert.deepEqual(sent, [["/webhooks", { headers }], ["/deliveries?limit=100", { headers }], ["/health/ready", { headers }], ["/attention", { headers }]]);
  assert.equal(await (await takeEarlyAnswer("/webhooks"))!.text(), "/webhooks");
  assert.equal(takeEarlyAnswer("/webhooks"), undefined);
  assert.equal(takeEarlyAnswer("/collections"), undefined);
  dropEarlyAnswers();
  assert.equal(takeEarlyAnswer("/deliveries?limit=100"), undefined);
  await Promise.resolve();
  assert.deepEqual(responses.map(({ bodyUsed }) => bodyUsed), [true, true, true, true], "no body is left unread");
});
