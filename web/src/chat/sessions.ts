// The chats of this browser. The server keeps the messages; the browser keeps which chats there are, and the questions whose
// answer failed or was stopped, which are no part of the history on the server.

import { identity, signedIn } from "../key.ts";
import { remembered } from "../resource.ts";

export interface KeptTurn {
  question: string;
  job: string | null;
  collection: string | null;
}

export interface Session {
  id: string;
  title: string;
  updated: number;
  turns: KeptTurn[];
}

const MOST = 200;

export const sessions = remembered<Session[]>("chats", []);

// Whoever signs in next may be somebody else.
identity.subscribe((change) => {
  if (change > 0 && !signedIn.value) sessions.value = [];
});

export const findSession = (id: string) => sessions.value.find((session) => session.id === id) ?? null;

/** Changes a chat, or adds it, as the latest. */
export function keepSession(id: string, change: Partial<Session>): void {
  const before = findSession(id) ?? { id, title: "New chat", updated: 0, turns: [] };
  const after = { ...before, updated: Date.now() / 1000, ...change };
  sessions.value = [after, ...sessions.value.filter((session) => session.id !== id)].sort((a, b) => b.updated - a.updated).slice(0, MOST);
}

/** Removes a chat from the list, and returns what puts it back. */
export function removeSession(id: string): () => void {
  const before = findSession(id);
  sessions.value = sessions.value.filter((session) => session.id !== id);
  return () => {
    if (before) keepSession(id, { ...before });
  };
}

export const titleOf = (question: string) => question.replace(/[#*`_>|]+/g, "").trim().split(/\s+/).join(" ").slice(0, 60) || "New chat";

/** The chats in the groups of the list: today, yesterday, and so on. */
export function byDay(list: Session[], now = new Date()): [string, Session[]][] {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  const groups: [string, Session[]][] = [["Today", []], ["Yesterday", []], ["Last seven days", []], ["Older", []]];
  for (const session of list) {
    const days = session.updated >= midnight ? 0 : Math.ceil((midnight - session.updated) / 86_400);
    groups[days === 0 ? 0 : days === 1 ? 1 : days <= 7 ? 2 : 3]![1].push(session);
  }
  return groups.filter(([, members]) => members.length > 0);
}
