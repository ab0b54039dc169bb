import assert from "node:assert/strict";
import { mock, test } from "node:test";

const fresh = () => ({ asked: [] as string[], ready: true, attention: [] as object[] });
let server = fresh();
mock.timers.enable({ apis: ["setTimeout"] });
Object.assign(globalThis, {
  location: new URL("http://host/"),
  sessionStorage: { getItem: () => null },
  BroadcastChannel: class { postMessage() {} },
  window: new EventTarget(),
  document: Object.assign(new EventTarget(), { hidden: false }),
  fetch: async (path: string) => {
    server.asked.push(path);
    if (path === "/health/ready" && !server.ready) return Response.json({ status: "starting", waiting_for: ["gpu"] }, { status: 503 });
    return Response.json(path === "/attention" ? { data: server.attention } : {});
  },
});
const { attention, attentionKnown, health, waitingFor } = await import("../src/store.ts");
/** Lets the answers arrive that are there already. */
const answered = () => new Promise(setImmediate);
async function pass(seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second += 1) {
    mock.timers.tick(1000);
    await answered();
  }
}

test("the lamp is lit by the first answers, and shows within 30 s what needs attention", async () => {
  await answered();
  assert.deepEqual([health.value, attentionKnown.value, attention.value], ["ready", true, []]);
  server = { ...fresh(), attention: [{ code: "webhook_disabled", message: "The webhook is disabled." }] };
  await pass(29);
  assert.equal(attention.value.length, 0);
  await pass(1);
  assert.equal(attention.value.length, 1);
  assert.equal(server.asked.filter((path) => path === "/health/ready").length, 3, "health costs a request every 10 s");
});

test("the lamp shows within 10 s that the server is not ready, and within 2 s that it is again", async () => {
  server = { ...fresh(), ready: false };
  await pass(10);
  assert.deepEqual([health.value, waitingFor.value], ["waiting", ["gpu"]]);
  server = fresh();
  await pass(2);
  assert.deepEqual([health.value, waitingFor.value], ["ready", []]);
});
