// The list of chats, which the server keeps.

import { computed, signal } from "@preact/signals";
import { ApiError, call } from "../api.ts";
import { identity } from "../key.ts";
import type { ChatEntry } from "../types.ts";
import { toast } from "../ui/basics.tsx";
import { problem } from "../words.ts";

const PAGE = 50;
/** A search that finds nothing goes on this often; each request reads hundreds of chats. */
const MOST_REQUESTS = 20;

/** The chats that are loaded, the latest first; null until the server was asked. */
export const sessions = signal<ChatEntry[] | null>(null);
const following = signal<string | null>(null);
/** What is searched for, and what was found; null while it is being searched. */
export const wanted = signal("");
export const found = signal<ChatEntry[] | null>(null);
export const hasMore = computed(() => wanted.value === "" && following.value !== null);

interface Page {
  data: ChatEntry[];
  next_cursor: string | null;
}

function load(parameters: Record<string, string>, abort?: AbortSignal): Promise<Page> {
  return call<Page>("GET", `/chat/sessions?${new URLSearchParams({ limit: String(PAGE), ...parameters })}`, { signal: abort });
}

/** Fetches the latest chats again. Those further down stay. */
export async function loadSessions(): Promise<void> {
  const asked = identity.value;
  try {
    const { data, next_cursor } = await load({});
    if (asked !== identity.value) return;
    const known = new Set(data.map(({ id }) => id));
    const oldest = data.at(-1)?.updated_at ?? 0;
    const older = next_cursor === null ? [] : (sessions.value ?? []).filter(({ id, updated_at }) => !known.has(id) && updated_at < oldest);
    if (older.length === 0) following.value = next_cursor;
    sessions.value = [...data, ...older];
  } catch (error) {
    // The header reports an outage, and the sign-in dialog a missing key.
    if (!(error instanceof ApiError)) throw error;
  }
}

export async function loadMore(): Promise<void> {
  if (following.value === null) return;
  const { data, next_cursor } = await load({ cursor: following.value });
  const known = new Set((sessions.value ?? []).map(({ id }) => id));
  following.value = next_cursor;
  sessions.value = [...(sessions.value ?? []), ...data.filter(({ id }) => !known.has(id))];
}

let searching = new AbortController();
let timer: ReturnType<typeof setTimeout> | undefined;

export function search(text: string): void {
  wanted.value = text.trim();
  found.value = null;
  clearTimeout(timer);
  searching.abort();
  if (wanted.value) timer = setTimeout(() => void runSearch(wanted.value), 200);
}

async function runSearch(text: string): Promise<void> {
  const mine = (searching = new AbortController());
  const list: ChatEntry[] = [];
  try {
    let cursor: string | null = "";
    for (let request = 0; cursor !== null && list.length < PAGE && request < MOST_REQUESTS; request += 1) {
      const page: Page = await load({ q: text, ...(cursor ? { cursor } : {}) }, mine.signal);
      list.push(...page.data);
      cursor = page.next_cursor;
    }
    found.value = list;
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof ApiError)) throw error;
    found.value = list;
    toast(problem(error), { bad: true });
  }
}

/** Puts what the server has answered about a chat into the list. */
export function keepSession(session: ChatEntry): void {
  const change = (list: ChatEntry[]) => [session, ...list.filter(({ id }) => id !== session.id)].sort((a, b) => b.updated_at - a.updated_at);
  sessions.value = change(sessions.value ?? []);
  if (found.value?.some(({ id }) => id === session.id)) found.value = change(found.value);
}

export function leaveOut(id: string): void {
  sessions.value = (sessions.value ?? []).filter((session) => session.id !== id);
  found.value &&= found.value.filter((session) => session.id !== id);
}

identity.subscribe(() => {
  sessions.value = following.value = found.value = null;
  wanted.value = "";
});

try {
  // Earlier versions of this page kept titles and questions here.
  localStorage.removeItem("enginehouse.chats");
} catch {
  // Storage may be blocked.
}
