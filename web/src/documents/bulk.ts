// Calls for several documents, a few at a time, and the message about those that failed.

import { ApiError } from "../api.ts";
import type { Document } from "../types.ts";
import { toast } from "../ui/basics.tsx";
import { leaving } from "../ui/undo.ts";
import { count, problem } from "../words.ts";

const LANES = 4;
export const UNDO_SECONDS = 30;

export const path = ({ id }: Document) => `/documents/${id}`;

/** Leaves documents out of the lists, or shows them again. */
export function hide(documents: Iterable<Document>, gone: boolean): void {
  const next = new Set(leaving.value);
  for (const one of documents) gone ? next.add(path(one)) : next.delete(path(one));
  leaving.value = next;
}

/** Calls `act` for each document, a few at a time; returns those that failed with their errors. */
export async function each(documents: Document[], act: (one: Document) => Promise<unknown>): Promise<Map<Document, ApiError>> {
  const queue = [...documents];
  const failed = new Map<Document, ApiError>();
  const lane = async () => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      try {
        await act(one);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        failed.set(one, error);
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return failed;
}

export function tell(failed: Map<Document, ApiError>, words: string): void {
  const [first] = failed;
  if (first) toast(`${words}: ${first[0].name}${failed.size > 1 ? ` and ${count(failed.size - 1, "other")}` : ""}. ${problem(first[1])}`, { bad: true });
}
