// How the deliveries of webhooks fare.

import type { Delivery, Webhook } from "../types.ts";

export interface HookHealth {
  hook: Webhook;
  all: number;
  good: number;
}

/** The webhooks with their share of recent deliveries that arrived: disabled ones first, then those that fail most. */
export function worstFirst(hooks: Webhook[], deliveries: Delivery[]): HookHealth[] {
  const tried = deliveries.filter(({ status, attempts }) => status !== "pending" || attempts.length > 0);
  const share = ({ hook, all, good }: HookHealth) => (hook.enabled ? 0 : -2) + (all > 0 ? good / all : 1);
  return hooks
    .map((hook) => {
      const own = tried.filter(({ webhook }) => webhook === hook.id);
      return { hook, all: own.length, good: own.filter(({ status }) => status === "delivered").length };
    })
    .sort((a, b) => share(a) - share(b));
}
