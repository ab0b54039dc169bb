// Limits of an owner in words, and which of them are worth a line.

import type { Account } from "../types.ts";
import { bytes, number } from "../words.ts";

const NAMES: Record<string, string> = {
  requests_per_second: "Requests a second",
  tokens_per_minute: "Tokens a minute",
  tokens_per_day: "Tokens today",
  tokens_per_month: "Tokens this month",
  running_jobs: "Running jobs",
  queued_jobs: "Waiting jobs in a queue",
  job_bytes: "Data of jobs and chats",
  kept_jobs: "Kept jobs",
  kept_bytes: "Data of kept jobs",
  open_batches: "Open batches",
  stored_bytes: "Files and documents",
  documents: "Documents",
  collections: "Collections",
  sessions: "Chats",
  streams: "Open streams",
  waits: "Waiting requests",
};
const SHORT = 0.8;

export interface LimitUse {
  name: string;
  /** 0 for none. */
  limit: number;
  /** null if the server does not count it. */
  used: number | null;
}

export const limitName = (name: string) => NAMES[name] ?? name.replace(/^end_user_/, "each end user: ").replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());
export const limitText = (name: string, value: number) => (name.endsWith("_bytes") ? bytes(value) : number(value));
export const isShort = (used: number, limit: number) => used >= SHORT * limit;

/** The limits that hold, and what is used without one, those that are nearly used first. */
export function shownLimits({ limits, used }: Pick<Account, "limits" | "used">): LimitUse[] {
  const share = ({ limit, used }: LimitUse) => (limit > 0 && used !== null ? used / limit : -1);
  return Object.entries(limits)
    .map(([name, limit]) => ({ name, limit, used: used[name] ?? null }))
    .filter(({ limit, used }) => limit > 0 || (used ?? 0) > 0)
    .sort((one, other) => share(other) - share(one));
}

/** The day so many days before today (UTC), such as 2026-01-31. */
export const dayBefore = (days: number, now = Date.now()) => new Date(now - days * 86_400_000).toISOString().slice(0, 10);
