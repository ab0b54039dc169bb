// Deletions that can be taken back for a while: what is deleted is hidden at once, and the call is made afterwards.

import { signal } from "@preact/signals";
import { ApiError } from "../api.ts";
import { credentials } from "../early.ts";
import { problem } from "../words.ts";
import { toast } from "./basics.tsx";

export const UNDO_SECONDS = 8;

/** The paths of what is being deleted, which lists leave out. */
export const leaving = signal<ReadonlySet<string>>(new Set());
const pending = new Map<string, ReturnType<typeof setTimeout>>();

function change(paths: string[], gone: boolean): void {
  const next = new Set(leaving.value);
  for (const path of paths) gone ? next.add(path) : next.delete(path);
  leaving.value = next;
}

/** Deletes what these paths name, unless the user takes it back. */
export function deleteLater(text: string, paths: string[], { after = () => {}, undone = () => {} }: { after?: () => void; undone?: () => void } = {}): void {
  const key = paths[0]!;
  change(paths, true);
  const end = async () => {
    pending.delete(key);
    const failed: ApiError[] = [];
    for (const path of paths) {
      try {
        const response = await fetch(path, { method: "DELETE", headers: { ...credentials(), Prefer: "respond-async" } });
        if (!response.ok && response.status !== 404) {
          const { code, message } = (await response.json()).error;
          failed.push(new ApiError(message, code, response.status));
        }
      } catch {
        failed.push(new ApiError("The server does not respond."));
      }
    }
    if (failed.length > 0) {
      change(paths, false);
      toast(`Not deleted: ${problem(failed[0]!)}`, { bad: true });
    }
    after();
  };
  pending.set(key, setTimeout(() => void end(), UNDO_SECONDS * 1000));
  toast(text, {
    seconds: UNDO_SECONDS,
    action: {
      label: "Undo",
      run: () => {
        clearTimeout(pending.get(key));
        pending.delete(key);
        change(paths, false);
        undone();
      },
    },
  });
  flushes.set(key, paths);
}

const flushes = new Map<string, string[]>();
window.addEventListener("pagehide", () => {
  for (const [key, timer] of pending) {
    clearTimeout(timer);
    for (const path of flushes.get(key) ?? []) void fetch(path, { method: "DELETE", headers: { ...credentials(), Prefer: "respond-async" }, keepalive: true });
  }
  pending.clear();
});
