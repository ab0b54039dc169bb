// What an API key may do, in words.

import type { ApiKey } from "../types.ts";

export const OWNER_SCOPES = ["generate", "documents", "chat", "search", "batches", "webhooks"];
export const SCOPES = [...OWNER_SCOPES, "metrics", "admin"];

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
