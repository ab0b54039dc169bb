// What all views share: who is signed in, the health of the server, its models and collections.

import { signal } from "@preact/signals";
import { ApiError, call } from "./api.ts";
import { identity, signIn } from "./key.ts";
import { refresh } from "./resource.ts";
import { href } from "./router.ts";
import type { Account, Attention, Collection, List, Model } from "./types.ts";

const READY_SECONDS = 10;
const NOT_READY_SECONDS = 2;
/** Every how many looks at the health the slower facts are fetched. */
const ATTENTION_LOOKS = 3;

/** The signed-in account; null until the server has answered. */
export const me = signal<Account | null>(null);

export type Health = "unknown" | "ready" | "waiting" | "away";
export const health = signal<Health>("unknown");
export const waitingFor = signal<string[]>([]);

/** What needs the attention of the user or the operator. */
export const attention = signal<Attention[]>([]);
/** Whether the server was asked once. */
export const attentionKnown = signal(false);

/** Where a thing that needs attention is seen and mended. */
export function placeOf({ code, subject }: Attention): string {
  if (code === "jobs_failing") return href("jobs", { status: "failed", within: "15m" });
  if (subject?.object === "collection") return href("documents", subject.id);
  if (subject?.object === "limit") return href("usage");
  return subject?.object === "webhook" ? href("webhooks") : href("operations");
}

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
    await call("GET", "/health/ready");
    health.value = "ready";
    waitingFor.value = [];
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // A 503 is an answer here, not a failure: it names what is missing.
    waitingFor.value = error.answer?.waiting_for ?? [];
    health.value = error.answer?.waiting_for ? "waiting" : "away";
  }
  if (health.value === "ready" && (before === "away" || before === "waiting")) refresh();
  if (me.value === null && health.value !== "away" && before === "away") void loadMe();
  if (health.value !== "away" && signIn.value === null && looks++ % ATTENTION_LOOKS === 0) {
    void lookForAttention();
  }
  timer = setTimeout(() => document.hidden || void lookAtHealth(), (health.value === "ready" ? READY_SECONDS : NOT_READY_SECONDS) * 1000);
}

export async function lookForAttention(): Promise<void> {
  await quietly(async () => (attention.value = (await call<List<Attention>>("GET", "/attention")).data));
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
  attention.value = [];
  models.value = null;
  collections.value = null;
  void lookAtHealth();
  void loadMe();
});
