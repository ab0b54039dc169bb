// The API key: kept until the tab is closed, shared with the other tabs of this page, and sent to this server only.

import { signal } from "@preact/signals";
import { dropEarlyAnswers, KEY_NAME } from "./early.ts";

/** Why the sign-in dialog is open, or null. */
export const signIn = signal<null | "missing" | "unknown">(null);
export const signedIn = signal(sessionStorage.getItem(KEY_NAME) !== null);
/** Changes with each key, so that everything is fetched again. */
export const identity = signal(0);

const channel = new BroadcastChannel("enginehouse.key");
channel.onmessage = ({ data }: MessageEvent<{ ask?: true; key?: string | null }>) => {
  const own = sessionStorage.getItem(KEY_NAME);
  if (data.ask) {
    if (own !== null) channel.postMessage({ key: own });
  } else if (data.key !== own) {
    keep(data.key ?? null);
  }
};
if (!signedIn.value) channel.postMessage({ ask: true });

function keep(key: string | null): void {
  dropEarlyAnswers();
  // With the key go the drafts.
  if (key === null) sessionStorage.clear();
  else sessionStorage.setItem(KEY_NAME, key);
  signedIn.value = key !== null;
  signIn.value = null;
  identity.value += 1;
}

export function useKey(key: string | null): void {
  keep(key);
  channel.postMessage({ key });
}

export function keyRefused(code: string): void {
  if (signIn.value === null) signIn.value = ["key_unknown", "key_expired"].includes(code) && signedIn.value ? "unknown" : "missing";
}
