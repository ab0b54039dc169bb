// Documents: the collections, the documents of one of them, uploads and search.

import { signal, useSignal } from "@preact/signals";
import { FolderUp, Pencil, Plus, RotateCcw, Settings2, Trash2, Upload as UploadIcon, X } from "lucide";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { signIn } from "../key.ts";
import { remembered, refreshes, useResource } from "../resource.ts";
import { go, href, query, segments, setQuery } from "../router.ts";
import "../start.tsx";
import { collections, loadCollections, loadModels, models } from "../store.ts";
import type { Collection, Document, DocumentCounts, Job, List } from "../types.ts";
import { attempt, confirmed, Dialog, DocumentState, Empty, Icon, IconButton, Problem, Time, toast } from "../ui/basics.tsx";
import { leaving } from "../ui/undo.ts";
import { VirtualRows } from "../ui/virtual.tsx";
import { bytes, count, DOCUMENT_STATUSES, documentReason, documentStatus, isAmiss, isUnfinished, number, problem, roughly } from "../words.ts";
import { ChangeDialog } from "./change.tsx";
import { deleteCollection, deleteDocuments } from "./deletion.ts";
import { DocumentSheet } from "./document_sheet.tsx";
import { PasswordDialog } from "./password.tsx";
import { SearchForm, SearchHits } from "./search.tsx";
import { chosenFiles, readDrop, sendRefusedAgain, startUpload, upload, type Upload } from "./uploads.ts";

const last = remembered("documents.collection", "default");
/** The first page is shown before the others, which are larger, are there. */
const PAGE = 100;
const NEXT_PAGE = 1000;
const MOST = 20_000;
const LOOK_SECONDS = 2;

export function DocumentsView() {
  const name = segments.value[1] ?? (collections.value?.some((one) => one.name === last.value) ? last.value : collections.value?.[0]?.name ?? "default");
  const document = segments.value[2];
  useEffect(() => {
    last.value = name;
  }, [name]);
  useEffect(() => {
    if (signIn.value === null) void loadCollections();
  }, [refreshes.value, signIn.value]);
  const creating = useSignal(false);
  const collection = collections.value?.find((one) => one.name === name) ?? null;
  return (
    <div class="documents">
      <section class="shelf" aria-label="Collections">
        <button type="button" onClick={() => (creating.value = true)}><Icon of={Plus} />New collection</button>
        <select class="only-narrow" aria-label="Collection" value={name} onChange={(event) => go(href("documents", event.currentTarget.value))}>
          {!collection && <option value={name}>{name}</option>}
          {(collections.value ?? []).map((one) => <option key={one.name} value={one.name}>{one.name} ({number(one.documents)})</option>)}
        </select>
        <ul>
          {(collections.value ?? []).map((one) => (
            <li key={one.name}><a href={href("documents", one.name)} aria-current={one.name === name ? "page" : undefined}>{one.name}
              <small>{count(one.documents, "document")}{one.reindex_job ? " · reindexing" : ""}</small></a></li>
          ))}
        </ul>
      </section>
      <CollectionView name={name} collection={collection} />
      {document && <DocumentSheet key={document} id={document} collection={name} />}
      {creating.value && <CollectionDialog onClose={() => (creating.value = false)} />}
    </div>
  );
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

function CollectionDialog({ onClose, existing }: { onClose: () => void; existing?: Collection }) {
  const error = useSignal<string | null>(null);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => void loadModels(), []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(form.current!);
    const text = (field: string) => String(data.get(field) ?? "").trim();
    const tokens = (field: string) => (text(field) ? Number(text(field)) : null);
    const settings = { chunk_tokens: tokens("chunk_tokens"), chunk_overlap_tokens: tokens("chunk_overlap_tokens") };
    const reindex = (event.submitter as HTMLButtonElement | null)?.value === "reindex";
    try {
      if (existing) {
        const path = `/collections/${encodeURIComponent(existing.name)}`;
        if (reindex) {
          const model = text("embedding_model");
          const job = await call<Job>("POST", `${path}/reindex`, { json: { ...settings, ...(model ? { embedding_model: model } : {}) }, prefer: "respond-async" });
          toast("The collection is being reindexed. Searches use the old index until then.", { action: { label: "Job", run: () => go(href("jobs", job.id)) } });
        } else {
          await call("PATCH", path, { json: settings });
          toast("Saved. It counts for documents that are added from now on.");
        }
      } else {
        const name = text("name");
        if (!NAME.test(name)) {
          error.value = "A name has up to 63 letters, digits, dots, dashes and underscores, and starts with a letter or digit.";
          return;
        }
        await call("POST", "/collections", { json: { name, ...(text("embedding_model") ? { embedding_model: text("embedding_model") } : {}), ...settings } });
        go(href("documents", name));
      }
      await loadCollections();
      onClose();
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      error.value = problem(caught);
    }
  };
  const embedders = (models.value ?? []).filter(({ task }) => task === "embed");
  return (
    <Dialog heading={existing ? `Settings of ${existing.name}` : "New collection"} onClose={onClose}>
      <form ref={form} onSubmit={submit} noValidate>
        {!existing && <div class="field"><label for="new-name">Name</label><input id="new-name" name="name" autoFocus autocomplete="off" aria-describedby="name-rule" /><p id="name-rule" class="hint">Letters, digits, dots, dashes and underscores.</p></div>}
        <div class="fields">
          <div class="field"><label for="new-model">Embedding model</label>
            <select id="new-model" name="embedding_model" defaultValue={existing?.embedding_model ?? ""}>
              <option value="">{existing ? "Unchanged" : "Default"}</option>
              {embedders.map((model) => <option key={model.name} value={model.name}>{model.name}</option>)}
            </select></div>
          <div class="field"><label for="new-chunk">Longest chunk (tokens)</label><input id="new-chunk" name="chunk_tokens" type="number" min={16} max={8192} placeholder="server's setting" defaultValue={existing?.chunk_tokens ?? ""} /></div>
          <div class="field"><label for="new-overlap">Overlap (tokens)</label><input id="new-overlap" name="chunk_overlap_tokens" type="number" min={0} max={4096} placeholder="server's setting" defaultValue={existing?.chunk_overlap_tokens ?? ""} /></div>
        </div>
        {error.value && <p class="notice bad" role="alert">{error.value}</p>}
        <div class="dialog-foot">
          {existing && <button type="submit" value="reindex">Save and reindex</button>}
          <button type="submit" class="primary">{existing ? "Save" : "Create"}</button>
        </div>
      </form>
    </Dialog>
  );
}

interface Shelf {
  documents: Document[];
  /** Of all documents, whatever is listed. */
  counts: Record<string, number>;
}

/** The statuses that a filter stands for: all, ready, working, amiss, or one status. */
function statusesOf(state: string): string[] {
  if (state === "working") return DOCUMENT_STATUSES.filter(isUnfinished);
  if (state === "amiss") return DOCUMENT_STATUSES.filter(isAmiss);
  return DOCUMENT_STATUSES.includes(state) ? [state] : [];
}

/** The documents of a collection in a state: pages are loaded one after another, and later only those that change. */
function useDocuments(name: string, exists: boolean | null, state: string) {
  return useResource<Shelf>(exists === null ? null : `documents ${name} ${exists} ${state}`, async (signal, shelf) => {
    if (!exists) return { documents: [], counts: {} };
    const root = `/collections/${encodeURIComponent(name)}/documents`;
    const filter = statusesOf(state);
    const path = `${root}?${filter.map((status) => `status=${status}&`).join("")}limit=`;
    const [{ status: counts }, first] = await Promise.all([
      call<DocumentCounts>("GET", `${root}/counts`, { signal }),
      call<List<Document>>("GET", `${path}${PAGE}`, { signal }),
    ]);
    const before = shelf?.documents ?? null;
    const known = new Map((before ?? []).map((one) => [one.id, one]));
    const fresh: Document[] = [];
    for (let part = first; ; ) {
      fresh.push(...part.data);
      const page = new Set(part.data.map(({ id }) => id));
      // Beyond a page that was known whole, and with no document under way, nothing has changed.
      const rest = (before ?? []).slice(fresh.length);
      const unchanged = before !== null && filter.length === 0 && part.data.every(({ id }) => known.has(id)) && before.length >= fresh.length
        && before.slice(0, fresh.length).every(({ id }, place) => fresh[place]!.id === id) && !rest.some(({ id, status }) => !page.has(id) && isUnfinished(status));
      if (unchanged) return { documents: [...fresh, ...rest], counts };
      if (!part.has_more || part.next === null || fresh.length >= MOST) return { documents: fresh, counts };
      part = await call<List<Document>>("GET", `${path}${NEXT_PAGE}&after=${encodeURIComponent(part.next)}`, { signal });
    }
  }, ({ documents, counts }) => (Object.keys(counts).some(isUnfinished) ? Math.max(LOOK_SECONDS, documents.length / 200) : 0));
}

type Order = "name" | "status" | "pages" | "chunks" | "size" | "created_at";
const VALUES: Record<Order, (one: Document) => string | number> = {
  name: (one) => one.name.toLowerCase(),
  status: (one) => (isAmiss(one.status) ? 0 : isUnfinished(one.status) ? 1 : 2),
  pages: (one) => one.pages ?? 0,
  chunks: (one) => one.chunks ?? 0,
  size: (one) => one.size,
  created_at: (one) => one.created_at,
};
const narrow = matchMedia("(max-width: 640px)");
const COLUMNS = "28px minmax(160px, 1fr) 116px 46px 50px 60px 84px 138px";

// Without a key: if the address names no collection, the name changes once the collections are known, and the focus stays where it is.
function CollectionView({ name, collection }: { name: string; collection: Collection | null }) {
  const state = query.value.get("state") ?? "";
  const { data, error, reload } = useDocuments(name, collections.value === null ? null : collection !== null, state);
  const { selected, settings, passwordFor, changing } = useMemo(() => ({
    selected: signal<ReadonlySet<string>>(new Set()),
    settings: signal(false),
    passwordFor: signal<Document | null>(null),
    changing: signal<Document[] | null>(null),
  }), [name]);
  const small = useSignal(narrow.matches);
  useEffect(() => {
    const changed = () => (small.value = narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  const text = query.value.get("name") ?? "";
  const order = (query.value.get("sort") ?? "-created_at") as Order | `-${Order}`;
  const search = query.value.get("q") ?? "";
  const gone = (one: Document) => leaving.value.has(`/documents/${one.id}`);
  const listed = data.value?.documents ?? [];
  const counts = { ...data.value?.counts };
  for (const one of listed.filter(gone)) counts[one.status] = (counts[one.status] ?? 0) - 1;
  const sum = (statuses: string[]) => statuses.reduce((total, status) => total + Math.max(0, counts[status] ?? 0), 0);
  const total = sum(Object.keys(counts));
  const [ready, working, amiss] = [sum(["ready"]), sum(statusesOf("working")), sum(statusesOf("amiss"))];
  // One kind of trouble is what "Need attention" lists.
  const troubles = statusesOf("amiss").filter((status) => (counts[status] ?? 0) > 0);
  const chips: [string, string, number][] = [["", "All", total], ["ready", "Ready", ready], ["working", "Being read", working], ["amiss", "Need attention", amiss]];
  if (troubles.length > 1 || troubles.includes(state)) for (const status of troubles) chips.push([status, documentStatus(status), counts[status]!]);
  const field = order.replace("-", "") as Order;
  const sign = order.startsWith("-") ? -1 : 1;
  const value = VALUES[field] ?? VALUES.created_at;
  const list = listed
    .filter((one) => !gone(one) && (!text || one.name.toLowerCase().includes(text.toLowerCase())))
    .sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  const chosen = list.filter(({ id }) => selected.value.has(id));

  const remove = (some: Document[]) => {
    selected.value = new Set();
    if (some.some(({ id }) => id === segments.value[2])) go(href("documents", name));
    deleteDocuments(some, () => { reload(); void loadCollections(); });
  };
  const retry = (some: Document[]) => attempt(async () => {
    for (const one of some) await call("POST", `/jobs/${one.job_id}/retry`, { json: {} });
    toast(some.length === 1 ? `${some[0]!.name} is read again.` : `${count(some.length, "document")} are read again.`);
    reload();
  });
  const removeAll = async () => {
    if (!(await confirmed(`Delete the collection ${name} and its ${count(collection?.documents ?? total, "document")}? It can be taken back for a minute.`, "Delete collection"))) return;
    await attempt(async () => {
      await deleteCollection(name);
      go(href("documents"));
    });
  };
  const sortBy = (column: Order) => setQuery({ sort: order === column ? `-${column}` : order === `-${column}` ? null : column });
  const header = (column: Order, words: string, right = false) => (
    <div role="columnheader" class={right ? "right" : undefined} aria-sort={field === column ? (sign > 0 ? "ascending" : "descending") : undefined}>
      <button type="button" onClick={() => sortBy(column)}>{words}{field === column ? (sign > 0 ? " ↑" : " ↓") : ""}</button></div>
  );
  const toggle = (id: string) => {
    const next = new Set(selected.value);
    if (!next.delete(id)) next.add(id);
    selected.value = next;
  };
  const away = error.value !== null && error.value.status === 0;
  return (
    <section class="view" aria-label={`Collection ${name}`}>
      <div class="view-head">
        <h1>{name}</h1>
        {total > 0 && (
          <span class="hint" role="status">{count(ready, "ready", "ready")}{working > 0 ? ` · ${number(working)} being read` : ""}{amiss > 0 ? ` · ${number(amiss)} ${amiss === 1 ? "needs" : "need"} attention` : ""}</span>
        )}
        {collection && <button type="button" class="quiet" onClick={() => (settings.value = true)}><Icon of={Settings2} />Settings</button>}
        {collection && <button type="button" class="quiet danger" disabled={away} onClick={removeAll}><Icon of={Trash2} />Delete collection</button>}
      </div>
      <DropZone collection={name} />
      {upload.value !== null && <Uploads upload={upload.value} />}
      <Problem error={error.value} />
      <SearchForm key={search} text={search} collection={name} />
      {search && <SearchHits collection={name} text={search} />}
      {!search && data.value !== null && total === 0 && <Empty><h2>Nothing here yet</h2><p>Drop files or a folder above. As soon as they are read you can search them here, and choose “{name}” in the chat to get answers with citations.</p></Empty>}
      {!search && total > 0 && (
        <>
          <div class="bar filters" tabIndex={-1}>
            <input type="search" class="filter" aria-label="Filter by name" placeholder="Filter by name" value={text} onInput={(event) => setQuery({ name: event.currentTarget.value })} />
            {chips.map(([value, words, many]) => (
              <button key={value} type="button" class="chip" aria-pressed={state === value} onClick={() => setQuery({ state: value })}>{words} <b>{number(many)}</b></button>
            ))}
          </div>
          {chosen.length > 0 && (
            <div class="selection" role="group" aria-label="Selection">
              <span>{number(chosen.length)} selected</span>
              <button type="button" class="small" disabled={!chosen.some(({ status }) => isAmiss(status))} onClick={() => { void retry(chosen.filter(({ status }) => isAmiss(status))); selected.value = new Set(); }}>Read again</button>
              <button type="button" class="small" onClick={() => (changing.value = chosen)}>{chosen.length === 1 ? "Rename or move" : "Move"}</button>
              <button type="button" class="small danger" onClick={() => remove(chosen)}>Delete</button>
              <IconButton icon={X} label="Select nothing" onClick={() => (selected.value = new Set())} />
            </div>
          )}
          {list.length === 0 && <Empty><p>No document matches these filters.</p></Empty>}
          <VirtualRows count={list.length} height={small.value ? 92 : 40} columns={8} template={COLUMNS} label="Documents"
            head={
              <div class="grid-head" role="row">
                <div role="columnheader" class="check"><label><input type="checkbox" aria-label="Select all" checked={chosen.length > 0 && chosen.length === list.length} onChange={(event) => (selected.value = new Set(event.currentTarget.checked ? list.map(({ id }) => id) : []))} /></label></div>
                {header("name", "Name")}{header("status", "State")}{header("pages", "Pages", true)}{header("chunks", "Chunks", true)}{header("size", "Size", true)}{header("created_at", "Added", true)}
                <div role="columnheader"><span class="unseen">Actions</span></div>
              </div>
            }
            row={(place) => {
              const one = list[place]!;
              const reason = isAmiss(one.status) ? documentReason(one.status, one.reason) : "";
              const actions = (
                <span role="cell" class="row-actions">
                  {one.status === "encrypted" && <button type="button" class="small" onClick={() => (passwordFor.value = one)}>Password</button>}
                  {isAmiss(one.status) && one.status !== "encrypted" && <IconButton icon={RotateCcw} label={`Read ${one.name} again`} onClick={() => void retry([one])} />}
                  <IconButton icon={Pencil} label={`Rename or move ${one.name}`} aria-haspopup="dialog" onClick={() => (changing.value = [one])} />
                  <IconButton icon={Trash2} label={`Delete ${one.name}`} onClick={() => remove([one])} />
                </span>
              );
              return (
                <div class={small.value ? "grid-row narrow-row" : "grid-row"} role="row" aria-rowindex={place + 2} aria-selected={selected.value.has(one.id)}>
                  <span role="cell" class="check"><label><input type="checkbox" aria-label={`Select ${one.name}`} checked={selected.value.has(one.id)} onChange={() => toggle(one.id)} /></label></span>
                  <span role="cell" class="two-lines"><a class="row-link" href={href("documents", name, one.id)} title={one.name}>{one.name}</a>{reason && <small class="why" title={reason}>{reason}</small>}</span>
                  <span role="cell"><DocumentState status={one.status} />{isUnfinished(one.status) && one.pages ? <small class="hint"> {one.pages_done}/{one.pages}</small> : null}</span>
                  <span role="cell" class="right number">{one.pages || ""}</span>
                  <span role="cell" class="right number">{one.chunks || ""}</span>
                  <span role="cell" class="right number">{bytes(one.size)}</span>
                  <span role="cell" class="right hint"><Time at={one.created_at} /></span>
                  {actions}
                </div>
              );
            }} />
        </>
      )}
      {settings.value && collection && <CollectionDialog existing={collection} onClose={() => (settings.value = false)} />}
      {changing.value && <ChangeDialog documents={changing.value} onClose={() => (changing.value = null)} after={() => { selected.value = new Set(); reload(); }} />}
      {passwordFor.value && <PasswordDialog document={passwordFor.value} onClose={() => (passwordFor.value = null)} onSent={reload} />}
    </section>
  );
}

function DropZone({ collection }: { collection: string }) {
  const over = useSignal(false);
  const locked = signIn.value !== null;
  const dropped = async (event: DragEvent) => {
    event.preventDefault();
    over.value = false;
    if (event.dataTransfer) await startUpload(collection, await readDrop(event.dataTransfer));
  };
  const chosen = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    void startUpload(collection, chosenFiles(input.files!));
    input.value = "";
  };
  return (
    <div id="drop" class="drop" data-over={over.value} onDragOver={(event) => { event.preventDefault(); over.value = true; }} onDragLeave={() => (over.value = false)} onDrop={dropped}>
      <p>Drop files or folders here. <span class="hint">PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, web pages, mail, Markdown, code and text, also in zip and tar archives.</span></p>
      <label class="button"><Icon of={UploadIcon} />Choose files<input class="unseen" id="files" type="file" multiple disabled={locked} onChange={chosen} /></label>
      <label class="button"><Icon of={FolderUp} />Choose a folder<input class="unseen" id="folder" type="file" disabled={locked} onChange={chosen} {...{ webkitdirectory: true }} /></label>
    </div>
  );
}

function uploadWords({ files, sent, refused, duplicates, batch, started, done }: Upload): string {
  const counts = (batch as { counts?: { total: number; completed: number; failed: number; cancelled: number; expired: number } } | null)?.counts;
  const over = counts ? counts.completed + counts.failed + counts.cancelled + counts.expired : 0;
  const total = Math.max(counts?.total ?? 0, files - duplicates - refused.length);
  const parts: string[] = [];
  if (sent < files) parts.push(`Sending: ${number(sent)} of ${number(files)}`);
  if (total > 0) parts.push(`${number(counts?.completed ?? 0)} of ${number(total)} ready`);
  if (counts && counts.failed > 0) parts.push(`${number(counts.failed)} failed`);
  if (counts && counts.cancelled > 0) parts.push(`${number(counts.cancelled)} cancelled`);
  if (duplicates > 0) parts.push(`${number(duplicates)} already there`);
  if (refused.length > 0) parts.push(`${number(refused.length)} not accepted`);
  if (!done && over > 2 && over < total) parts.push(roughly(((Date.now() / 1000 - started) / over) * (total - over)));
  return parts.join(", ");
}

function Uploads({ upload: now }: { upload: Upload }) {
  const counts = (now.batch as { counts?: { total: number; completed: number; failed: number; cancelled: number; expired: number } } | null)?.counts;
  const over = (counts ? counts.completed + counts.failed + counts.cancelled + counts.expired : 0) + now.refused.length + now.duplicates;
  const stop = () => attempt(() => call("POST", `/jobs/${now.batch!.id}/cancel`));
  return (
    <section class="card uploads" aria-label="Upload">
      <header>
        <p><strong>{now.collection}</strong> <span id="upload-words" role="status">{uploadWords(now)}</span></p>
        {now.batch && <a class="button small" href={href("jobs", now.batch.id)}>Job</a>}
        {!now.done && now.batch && <button type="button" class="small" onClick={stop}>Stop</button>}
        {now.done && <IconButton icon={X} label="Dismiss" onClick={() => (upload.value = null)} />}
      </header>
      <progress aria-label="Upload" max={now.files} value={Math.min(now.files, now.done ? now.files : over)} />
      {now.waiting && <p class="hint">{now.waiting}</p>}
      {now.refused.length > 0 && (
        <>
          <ul>{now.refused.slice(0, 200).map(({ name, reason }) => <li key={name}><strong>{name}</strong>: {reason}</li>)}</ul>
          {now.done && now.refused.some(({ again }) => again) && <button type="button" class="small" onClick={sendRefusedAgain}>Send {count(now.refused.filter(({ again }) => again).length, "file")} again</button>}
        </>
      )}
    </section>
  );
}
