// A document: its state, its pages as pictures with the chunks on them, and what can be done with it.

import { useSignal } from "@preact/signals";
import { ChevronLeft, ChevronRight, Download } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api.ts";
import { refresh, useResource } from "../resource.ts";
import { go, href } from "../router.ts";
import type { Chunk, Document, Job, List, PageBox, PageText } from "../types.ts";
import { attempt, copyText, DocumentState, Icon, IconButton, Problem, Sheet, Time, toast } from "../ui/basics.tsx";
import { bytes, count, documentReason, documentStatus, isAmiss, isUnfinished, problem, waitReason } from "../words.ts";
import { ChangeDialog } from "./change.tsx";
import { deleteDocuments } from "./deletion.ts";
import { download } from "./download.ts";
import { PagePicture, usePicture } from "./page_picture.tsx";
import { PageStrip } from "./page_strip.tsx";
import { PasswordDialog } from "./password.tsx";

const PDF = "application/pdf";
const MOST_CHUNKS = 100;
const narrow = matchMedia("(max-width: 900px)");

export function DocumentSheet({ id, collection }: { id: string; collection: string }) {
  const close = () => go(href("documents", collection));
  const { data, error, reload } = useResource(`document ${id}`, (signal) => call<Document>("GET", `/documents/${id}`, { signal }), (one) => (isUnfinished(one.status) ? 2 : 0));
  const one = data.value;
  const job = useResource(one && isUnfinished(one.status) ? `job ${one.job_id}` : null, (signal) => call<Job>("GET", `/jobs/${one!.job_id}`, { signal }), 2);
  const asking = useSignal(false);
  const changing = useSignal(false);
  const again = () => attempt(async () => {
    await call("POST", `/jobs/${one!.job_id}/retry`, { json: {} });
    reload();
    refresh();
  });
  const remove = () => {
    close();
    deleteDocuments([one!], refresh);
  };
  const waiting = job.data.value;
  return (
    <Sheet heading={one?.name ?? "Document"} onClose={close} wide>
      <Problem error={error.value} />
      {one && (
        <>
          <div class="bar">
            <DocumentState status={one.status} />
            {one.status === "encrypted" && <button type="button" class="small" onClick={() => (asking.value = true)}>Password</button>}
            {isAmiss(one.status) && one.status !== "encrypted" && <button type="button" class="small" onClick={again}>Read again</button>}
            <button type="button" class="small" onClick={() => void attempt(() => download(`/documents/${one.id}/file`, one.name))}><Icon of={Download} size={14} />Download</button>
            <a class="button small" href={href("jobs", one.job_id)}>Job</a>
            <button type="button" class="small" onClick={() => { void copyText(one.id); toast("The id is copied."); }}>Copy id</button>
            <button type="button" class="small" onClick={() => (changing.value = true)}>Rename or move</button>
            <button type="button" class="small danger" onClick={remove}>Delete</button>
          </div>
          {waiting?.status === "queued" && <p class="notice">{documentStatus(one.status)}{waiting.queue_position ? `: number ${waiting.queue_position} in line` : ""}{waiting.waiting_for ? `, waiting ${waitReason(waiting.waiting_for)}` : ""}.</p>}
          {one.reason && <p class={isAmiss(one.status) ? "notice bad" : "notice"}>{documentReason(one.status, one.reason)}</p>}
          <Facts document={one} />
          {one.problems.length > 0 && <details class="notice"><summary>{count(one.problems.length, "remark")} about its pages</summary><ul>{one.problems.map((remark) => <li key={remark.pages + remark.text}>Page {remark.pages}: {remark.text}</li>)}</ul></details>}
          {one.status === "ready" && one.pages > 0 && <Viewer document={one} />}
          {changing.value && <ChangeDialog documents={[one]} onClose={() => (changing.value = false)} after={() => { reload(); refresh(); }} />}
          {asking.value && <PasswordDialog document={one} onClose={() => (asking.value = false)} onSent={() => { reload(); refresh(); }} />}
        </>
      )}
    </Sheet>
  );
}

function Facts({ document }: { document: Document }) {
  const metadata = Object.entries(document.metadata ?? {});
  return (
    <details class="document-facts">
      <summary>{bytes(document.size)}{document.pages ? ` · ${count(document.pages, "page")}${document.chunks ? ` in ${count(document.chunks, "chunk")}` : ""}` : ""} · added <Time at={document.created_at} /></summary>
      <dl class="facts">
        <dt>Format</dt><dd>{document.media_type}</dd>
        <dt>Version</dt><dd>{document.version}</dd>
        <dt>SHA-256</dt><dd class="code">{document.sha256}</dd>
        {metadata.map(([field, value]) => <><dt>{field}</dt><dd>{String(value)}</dd></>)}
      </dl>
    </details>
  );
}

/** The chunks of a page, each with its places on the page, once the picture is there. */
function useChunks(document: Document, page: number, drawn: boolean | null) {
  return useResource(drawn === null ? null : `chunks ${document.id} ${page} ${drawn}`, async (signal) => {
    const { data } = await call<List<Chunk>>("GET", `/documents/${document.id}/chunks?page=${page}&limit=${MOST_CHUNKS}`, { signal });
    const places = (chunk: Chunk) => call<PageText>("GET", `/documents/${document.id}/pages/${page}/text?start=${chunk.start}&end=${chunk.end}`, { signal });
    return Promise.all(data.map(async (chunk) => ({ chunk, boxes: drawn ? (await places(chunk)).boxes : ([] as PageBox[]) })));
  });
}

function Viewer({ document }: { document: Document }) {
  const page = useSignal(1);
  const chosen = useSignal<number | null>(null);
  const small = useSignal(narrow.matches);
  useEffect(() => {
    const changed = () => (small.value = narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  const isPdf = document.media_type === PDF;
  const picture = usePicture(document.id, isPdf ? page.value : null);
  const failed = picture.error.value !== null;
  const drawn = isPdf && !failed;
  const chunks = useChunks(document, page.value, !isPdf || failed ? false : picture.data.value ? true : null);
  const list = useRef<HTMLOListElement>(null);
  const turn = (to: number) => {
    page.value = Math.min(document.pages, Math.max(1, to));
    chosen.value = null;
  };
  const choose = (position: number, fromPage: boolean) => {
    chosen.value = position;
    if (fromPage) list.current?.querySelector(`[data-chunk="${position}"]`)?.scrollIntoView({ block: "nearest" });
  };
  const marks = (chunks.data.value ?? []).map(({ chunk, boxes }) => ({
    key: String(chunk.position), boxes, label: `Chunk ${chunk.position + 1}`, chosen: chosen.value === chunk.position, onChoose: () => choose(chunk.position, true),
  }));
  return (
    <section class={drawn ? "viewer drawn" : "viewer"} aria-label="Pages and chunks">
      {drawn && document.pages > 1 && !small.value && <PageStrip document={document.id} pages={document.pages} current={page.value} onChoose={turn} />}
      <div class="viewer-page">
        <div class="bar">
          <IconButton icon={ChevronLeft} label="Previous page" aria-disabled={page.value <= 1} onClick={() => turn(page.value - 1)} />
          <label class="page-number">Page <input type="number" min={1} max={document.pages} value={page.value} onChange={(event) => turn(Math.trunc(event.currentTarget.valueAsNumber) || 1)} /> of {document.pages}</label>
          <IconButton icon={ChevronRight} label="Next page" aria-disabled={page.value >= document.pages} onClick={() => turn(page.value + 1)} />
        </div>
        {picture.error.value !== null && <p class="notice">{problem(picture.error.value)}</p>}
        {drawn && picture.data.value === null && <p class="hint" role="status">Drawing the page…</p>}
        {drawn && picture.data.value && <PagePicture picture={picture.data.value} label={`Page ${page.value} of ${document.name}`} marks={marks} reveal={chosen.value === null ? undefined : String(chosen.value)} />}
      </div>
      <div class="viewer-chunks">
        <h3>{chunks.data.value === null ? "Chunks" : count(chunks.data.value.length, "chunk")}</h3>
        <Problem error={chunks.error.value} />
        {chunks.data.value?.length === 0 && <p class="hint">This page has no text that is searched.</p>}
        <ol ref={list} aria-label="Chunks of the page">
          {(chunks.data.value ?? []).map(({ chunk, boxes }) => (
            <li key={chunk.id} class="chunk" data-chunk={chunk.position} data-chosen={chosen.value === chunk.position}>
              {boxes.length > 0
                ? <button type="button" class="quiet small" aria-pressed={chosen.value === chunk.position} onClick={() => choose(chunk.position, false)}>Chunk {chunk.position + 1}</button>
                : <span class="hint">Chunk {chunk.position + 1}</span>}
              {chunk.headings.length > 0 && <span class="hint"> {chunk.headings.join(" › ")}</span>}
              <p dir="auto">{chunk.text}</p>
            </li>
          ))}
        </ol>
      </div>
    </section>
  );
}
