// What all views share: who is signed in, the health of the server, its models and collections.

import { computed, signal } from "@preact/signals";
import { ApiError, call } from "./api.ts";
import { identity, signIn } from "./key.ts";
import { refresh } from "./resource.ts";
import type { Account, Collection, DeadLetter, Delivery, GpuWorker, List, Model, Queue, Webhook } from "./types.ts";

const READY_SECONDS = 10;
const NOT_READY_SECONDS = 2;
/** Every how many looks at the health the slower facts are fetched. */
const ATTENTION_LOOKS = 3;
/** A receiver that restarts may miss one or two tries of a delivery, and a few in all. */
const FAILED_TRIES = 3;
const FAILED_TRIES_IN_ALL = 10;
const FIRST_ATTENTION_SECONDS = 1;

/** The signed-in account; null until the server has answered. */
export const me = signal<Account | null>(null);

export type Health = "unknown" | "ready" | "waiting" | "away";
export const health = signal<Health>("unknown");
export const waitingFor = signal<string[]>([]);
export const warnings = signal<string[]>([]);

export interface Attention {
  text: string;
  href: string;
}
const found = signal<Attention[]>([]);
/** Whether the server was asked once. */
export const attentionKnown = signal(false);
export const attention = computed<Attention[]>(() => [
  ...warnings.value.map((text) => ({ text, href: "/ui/operations" })),
  ...found.value,
]);

export const models = signal<Model[] | null>(null);
export const collections = signal<Collection[] | null>(null);

let loadingModels: Promise<boolean> | null = null;

export async function loadModels(): Promise<void> {
  // Several parts of the page ask for them when it starts.
  loadingModels ??= quietly(async () => (models.value = await call<Model[]>("GET", "/models"))).finally(() => (loadingModels = null));
  await loadingModels;
}

export async function loadCollections(): Promise<void> {
  await quietly(async () => (collections.value = (await call<List<Collection>>("GET", "/collections")).data));
}

/** Background facts: the header tells of an outage, and the sign-in dialog of a missing key. */
async function quietly(load: () => Promise<unknown>): Promise<boolean> {
  try {
    await load();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return false;
  }
}

let timer: ReturnType<typeof setTimeout> | undefined;
let looks = 0;

export async function lookAtHealth(): Promise<void> {
  clearTimeout(timer);
  const before = health.value;
  try {
    const ready = await call("GET", "/health/ready");
    health.value = "ready";
    waitingFor.value = [];
    warnings.value = ready.warnings ?? [];
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // A 503 is an answer here, not a failure: it names what is missing.
    waitingFor.value = error.answer?.waiting_for ?? [];
    health.value = error.answer?.waiting_for ? "waiting" : "away";
  }
  if (health.value === "ready" && (before === "away" || before === "waiting")) refresh();
  if (me.value === null && health.value !== "away" && before === "away") void loadMe();
  if (health.value !== "away" && signIn.value === null && looks++ % ATTENTION_LOOKS === 0) {
    // The view comes first when the page is opened.
    setTimeout(() => void lookForAttention(), attentionKnown.value ? 0 : FIRST_ATTENTION_SECONDS * 1000);
  }
  timer = setTimeout(() => document.hidden || void lookAtHealth(), (health.value === "ready" ? READY_SECONDS : NOT_READY_SECONDS) * 1000);
}

export async function lookForAttention(): Promise<void> {
  const list: Attention[] = [];
  await quietly(async () => {
    for (const { url, enabled } of (await call<List<Webhook>>("GET", "/webhooks")).data) {
      if (!enabled) list.push({ text: `The webhook ${url} is disabled.`, href: "/ui/webhooks" });
    }
  });
  await quietly(async () => {
    const pending = (await call<List<Delivery>>("GET", "/deliveries?status=pending&limit=100")).data;
    for (const url of new Set(pending.map((one) => one.url))) {
      const tries = pending.filter((one) => one.url === url).map(({ attempts }) => attempts.length);
      if (Math.max(...tries) >= FAILED_TRIES || tries.reduce((sum, one) => sum + one, 0) >= FAILED_TRIES_IN_ALL) list.push({ text: `Deliveries to ${url} fail.`, href: "/ui/webhooks" });
    }
  });
  if (me.value?.admin !== false) {
    await quietly(async () => {
      const dead = (await call<List<DeadLetter>>("GET", "/admin/dead-letters?limit=100")).data.length;
      if (dead > 0) list.push({ text: `${dead === 1 ? "One job is a dead letter" : `${dead} jobs are dead letters`}: their workers died.`, href: "/ui/operations" });
      for (const { gpu, state, reason, gpus } of (await call<List<GpuWorker>>("GET", "/admin/gpus")).data) {
        if (state === "failed") list.push({ text: `${gpu} could not load its model: ${reason ?? "see its log"}`, href: "/ui/operations" });
        if (gpus.some((one) => one.memory_alarm === "critical")) list.push({ text: `The GPU memory of ${gpu} is nearly full.`, href: "/ui/operations" });
        if (gpus.some((one) => one.xid_errors.length > 0)) list.push({ text: `A GPU of ${gpu} reported an error (Xid).`, href: "/ui/operations" });
      }
      for (const { queue, waiting, workers, paused_at } of (await call<List<Queue>>("GET", "/admin/queues")).data) {
        if (waiting === 0) continue;
        if (paused_at !== null) list.push({ text: `The queue ${queue} is paused while ${waiting === 1 ? "a job waits" : `${waiting} jobs wait`} in it.`, href: "/ui/operations" });
        else if (workers === 0 && !queue.startsWith("gpu.")) list.push({ text: `No worker serves the queue ${queue}, in which ${waiting === 1 ? "a job waits" : `${waiting} jobs wait`}.`, href: "/ui/operations" });
      }
    });
  }
  found.value = list;
  attentionKnown.value = true;
}

export async function loadMe(): Promise<void> {
  await quietly(async () => (me.value = await call<Account>("GET", "/me")));
}

document.addEventListener("visibilitychange", () => document.hidden || void lookAtHealth());
for (const event of ["online", "offline"]) window.addEventListener(event, () => void lookAtHealth());
identity.subscribe(() => {
  looks = 0;
  me.value = null;
  models.value = null;
  collections.value = null;
  void lookAtHealth();
  void loadMe();
});
