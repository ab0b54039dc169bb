// Deletion of documents and collections, which the server can take back for a minute.

import { ApiError, call } from "../api.ts";
import { credentials } from "../early.ts";
import type { Document } from "../types.ts";
import { go, href } from "../router.ts";
import { loadCollections } from "../store.ts";
import { attempt, toast } from "../ui/basics.tsx";
import { count, isUnfinished } from "../words.ts";
import { each, hide, path, tell, UNDO_SECONDS } from "./bulk.ts";

const waiting = new Set<Document>();

/** Repeats the job that was reading a document, which its deletion has cancelled. */
async function readAgain({ job_id: job }: Document): Promise<void> {
  try {
    await call("GET", `/jobs/${job}?wait=10`);
    await call("POST", `/jobs/${job}/retry`, { json: {} });
  } catch (error) {
    // The cancel came too late, and the document is ready; or the job takes long to stop, and the list offers to read it again.
    if (!(error instanceof ApiError && error.status === 409)) throw error;
  }
}

/** Deletes documents and offers to take it back. `after` is called when the server's lists have changed. */
export function deleteDocuments(documents: Document[], after: () => void): void {
  const deleted: Document[] = [];
  let stopped = false;
  hide(documents, true);
  for (const one of documents) waiting.add(one);
  const work = each(documents, async (one) => {
    waiting.delete(one);
    if (stopped) return;
    await call("DELETE", path(one)).catch((error) => {
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    });
    deleted.push(one);
  }).then((failed) => {
    hide(failed.keys(), false);
    tell(failed, "Not deleted");
    after();
  });
  const undo = async () => {
    stopped = true;
    await work;
    const failed = await each(deleted, async (one) => {
      await call("POST", `${path(one)}/restore`);
      if (isUnfinished(one.status)) await readAgain(one);
    });
    hide(documents, false);
    tell(failed, "Not restored");
    after();
  };
  toast(documents.length === 1 ? `${documents[0]!.name} is deleted.` : `${count(documents.length, "document")} are deleted.`, { seconds: UNDO_SECONDS, action: { label: "Undo", run: () => void undo() } });
}

/** Deletes a collection and offers to take it back. Throws ApiError. */
export async function deleteCollection(name: string): Promise<void> {
  const place = `/collections/${encodeURIComponent(name)}`;
  await call("DELETE", place);
  await loadCollections();
  const undo = () => attempt(async () => {
    await call("POST", `${place}/restore`);
    await loadCollections();
    go(href("documents", name));
  });
  toast(`The collection ${name} is deleted.`, { seconds: UNDO_SECONDS, action: { label: "Undo", run: () => void undo() } });
}

window.addEventListener("pagehide", () => {
  for (const one of waiting) void fetch(path(one), { method: "DELETE", headers: credentials(), keepalive: true });
  waiting.clear();
});
