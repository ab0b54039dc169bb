// What an API key may do and use, in words.

import type { ApiKey } from "../types.ts";
import { number } from "../words.ts";

export const OWNER_SCOPES = ["generate", "documents", "chat", "search", "batches", "webhooks"];
export const SCOPES = [...OWNER_SCOPES, "metrics", "admin"];

/** Token limits that a key can have, by the time that they count for. */
export const TOKEN_LIMITS: [string, string][] = [["tokens_per_minute", "a minute"], ["tokens_per_day", "a day"], ["tokens_per_month", "a month"]];

type Rights = Pick<ApiKey, "scopes" | "models" | "collections">;

export function keyState({ revoked_at, expires_at }: Pick<ApiKey, "revoked_at" | "expires_at">, now = Date.now() / 1000): "active" | "expired" | "revoked" {
  if (revoked_at !== null) return "revoked";
  return expires_at !== null && expires_at <= now ? "expired" : "active";
}

/** One line for each kind of right. */
export function rightsOf({ scopes, models, collections }: Rights): string[] {
  const has = (all: string[]) => scopes.length === all.length && all.every((scope) => scopes.includes(scope));
  const words = has(SCOPES) ? "All scopes" : has(OWNER_SCOPES) ? "Everything that an owner may do" : `Scopes: ${scopes.join(", ")}`;
  const only = (noun: string, names: string[] | null) => (names === null ? [] : [`Only the ${noun}: ${names.join(", ") || "none"}`]);
  return [words, ...only("models", models), ...only("collections", collections)];
}

/** The token limits of a key; empty if it has none. */
export function limitsOf(limits: ApiKey["limits"]): string {
  const own = TOKEN_LIMITS.filter(([name]) => limits[name]).map(([name, time]) => `${number(limits[name]!)} ${time}`);
  return own.length > 0 ? `Tokens at most: ${own.join(", ")}` : "";
}

/** The limits in a form, null for those that are left empty. For a value that is not a number, an error message that names the field. */
export function readLimits(data: FormData): Record<string, number | null> | string {
  const limits: Record<string, number | null> = {};
  for (const [name, time] of TOKEN_LIMITS) {
    const text = String(data.get(name) ?? "").replace(/[\s,_']/g, "");
    if (text !== "" && !/^\d{1,15}$/.test(text)) return `Tokens ${time}: a whole number such as 50,000, or nothing for no limit.`;
    limits[name] = Number(text) || null;
  }
  return limits;
}
