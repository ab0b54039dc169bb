// Other names and other collections for documents.

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { collections, loadCollections } from "../store.ts";
import type { Document, Job } from "../types.ts";
import { Dialog, toast } from "../ui/basics.tsx";
import { count, isUnfinished, problem } from "../words.ts";
import { each, hide, path, tell, UNDO_SECONDS } from "./bulk.ts";

const WAIT_SECONDS = 20;

/** The job once it has ended. */
async function ended(job: string): Promise<Job> {
  for (;;) {
    const state = await call<Job>("GET", `/jobs/${job}?wait=${WAIT_SECONDS}`);
    if (state.ended_at !== null) return state;
  }
}

/** Moves documents into another collection and offers to take it back. `after` is called when the server's lists have changed. */
export function moveDocuments(documents: Document[], target: string, after: () => void): void {
  const source = documents[0]!.collection;
  const jobs = new Map<Document, string>();
  const running = new Set<string>();
  let undone = false;
  hide(documents, true);
  const submit = async (one: Document) => {
    if (undone) return;
    const { id } = await call<Job>("POST", `${path(one)}/move`, { json: { collection: target } });
    jobs.set(one, id);
    running.add(id);
  };
  const wait = async (one: Document) => {
    const { status, error } = await ended(jobs.get(one)!);
    running.delete(jobs.get(one)!);
    if (status === "failed") throw new ApiError(error?.message ?? "The job failed.", error?.code ?? "job_failed", 409);
  };
  const work = (async () => {
    const failed = new Map([...(await each(documents, submit)), ...(await each([...jobs.keys()], wait))]);
    hide(documents, false);
    if (!undone) tell(failed, "Not moved");
    after();
    void loadCollections();
  })();
  const undo = async () => {
    undone = true;
    // A job that has not begun leaves its document where it is.
    for (const job of running) await call("POST", `/jobs/${job}/cancel`).catch(unlessEnded);
    await work;
    const failed = await each([...jobs.keys()], async (one) => {
      const { collection } = await call<Document>("GET", path(one));
      if (collection !== source) await ended((await call<Job>("POST", `${path(one)}/move`, { json: { collection: source } })).id);
    });
    tell(failed, "Not moved back");
    after();
    void loadCollections();
  };
  const what = documents.length === 1 ? `${documents[0]!.name} is` : `${count(documents.length, "document")} are`;
  toast(`${what} being moved to ${target}.`, { seconds: UNDO_SECONDS, action: { label: "Undo", run: () => void undo() } });
}

function unlessEnded(error: unknown): void {
  if (!(error instanceof ApiError && error.status === 409)) throw error;
}

/** Asks for another name or collection of a document, or for another collection of several. */
export function ChangeDialog({ documents, onClose, after }: { documents: Document[]; onClose: () => void; after: () => void }) {
  const error = useSignal<string | null>(null);
  const name = useRef<HTMLInputElement>(null);
  const target = useRef<HTMLSelectElement>(null);
  const [first] = documents;
  const others = (collections.value ?? []).filter((one) => one.name !== first!.collection);
  const busy = documents.some(({ status }) => isUnfinished(status));
  const rename = async (event: SubmitEvent) => {
    event.preventDefault();
    try {
      const wanted = name.current!.value.trim();
      if (wanted !== first!.name) await call("PATCH", path(first!), { json: { name: wanted } });
      after();
      onClose();
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      error.value = problem(caught);
    }
  };
  const move = (event: SubmitEvent) => {
    event.preventDefault();
    moveDocuments(documents, target.current!.value, after);
    onClose();
  };
  return (
    <Dialog heading={documents.length === 1 ? "Rename or move" : `Move ${count(documents.length, "document")}`} onClose={onClose}>
      {busy && <p class="notice">{documents.length === 1 ? "The document is" : "Some of them are"} still being read. Wait until that has ended.</p>}
      {documents.length === 1 && (
        <form class="one-line" onSubmit={rename}>
          <div class="field"><label for="document-name">Name</label><input ref={name} id="document-name" autoFocus autocomplete="off" required maxLength={4096} defaultValue={first!.name} /></div>
          <button type="submit" class="primary" disabled={busy}>Rename</button>
        </form>
      )}
      {error.value && <p class="notice bad" role="alert">{error.value}</p>}
      <form class="one-line" onSubmit={move}>
        <div class="field"><label for="document-collection">Collection</label>
          <select ref={target} id="document-collection" required disabled={others.length === 0}>
            {others.length === 0 ? <option value="">There is no other collection</option> : others.map((one) => <option key={one.name} value={one.name}>{one.name}</option>)}
          </select></div>
        <button type="submit" disabled={busy || others.length === 0}>Move</button>
      </form>
      <p class="hint">A document keeps its pages and its citations when it moves. Searches find it again as soon as it is indexed there.</p>
    </Dialog>
  );
}
