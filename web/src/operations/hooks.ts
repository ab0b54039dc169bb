// How the deliveries of webhooks fare.

import type { Delivery, Webhook } from "../types.ts";
import { duration, jobKind } from "../words.ts";

type WebhookEvent = Webhook["events"][number];

export interface HookHealth {
  hook: Webhook;
  all: number;
  good: number;
  /** Since when every recent delivery has failed, or null. */
  failingSince: number | null;
}

/** A delivery that was tried and has not arrived, whether or not it is tried again. */
export const hasFailed = ({ status, attempts }: Delivery) => status === "failed" || (status === "pending" && attempts.some(({ outcome }) => outcome !== null));

/** The webhooks with their share of recent deliveries that arrived: disabled ones first, then those that fail most. */
export function worstFirst(hooks: Webhook[], deliveries: Delivery[]): HookHealth[] {
  const tried = deliveries.filter((one) => one.status === "delivered" || hasFailed(one));
  const share = ({ hook, all, good }: HookHealth) => (hook.enabled ? 0 : -2) + (all > 0 ? good / all : 1);
  return hooks
    .map((hook) => {
      const own = tried.filter(({ webhook }) => webhook === hook.id);
      return { hook, all: own.length, good: own.filter(({ status }) => status === "delivered").length, failingSince: failingSince(own) };
    })
    .sort((a, b) => share(a) - share(b));
}

/** The first try after the newest delivery that arrived, if deliveries have failed since then. They may come in any order. */
function failingSince(deliveries: Delivery[]): number | null {
  const arrived = Math.max(0, ...deliveries.filter(({ status }) => status === "delivered").map(({ ended_at, created_at }) => ended_at ?? created_at));
  const failed = deliveries.filter(hasFailed).flatMap(({ attempts }) => attempts.map(({ started_at }) => started_at)).filter((at) => at > arrived);
  return failed.length > 0 ? Math.min(...failed) : null;
}

/** The state of a webhook in words, and whether it is one to look at. */
export function hookState({ hook, failingSince: since }: HookHealth, now: number): { words: string; amiss: boolean } {
  if (!hook.enabled) return { words: "Disabled", amiss: true };
  if (since === null) return { words: "Enabled", amiss: false };
  return { words: `Failing for ${duration(Math.max(1, Math.round(now - since)))}`, amiss: true };
}

const JOB_EVENTS: Partial<Record<WebhookEvent, string>> = {
  "job.started": "starts", "job.completed": "completes", "job.failed": "fails", "job.cancelled": "is cancelled", "job.expired": "expires",
};
/** The ways in which a job ends. */
const FINAL_EVENTS: WebhookEvent[] = ["job.completed", "job.failed", "job.cancelled", "job.expired"];

/** Which events a webhook receives, as sentences. */
export function hookEvents({ events, job_kinds: kinds }: Pick<Webhook, "events" | "job_kinds">): string {
  const anyEnd = FINAL_EVENTS.every((event) => events.includes(event));
  const words = events.flatMap((event) => (anyEnd && FINAL_EVENTS.includes(event) ? [] : (JOB_EVENTS[event] ?? [])));
  if (anyEnd) words.push("ends");
  const others = events.filter((event) => !(event in JOB_EVENTS));
  return [
    ...(words.length > 0 ? [`When a job ${new Intl.ListFormat("en", { type: "disjunction" }).format(words)}.`] : []),
    ...(others.length > 0 ? [`On ${new Intl.ListFormat("en").format(others)}.`] : []),
    `Kinds: ${kinds.map((kind) => jobKind(kind).toLowerCase()).join(", ")}.`,
  ].join(" ");
}
