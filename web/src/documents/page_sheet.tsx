// A page of a document with a passage marked in it.

import { useSignal } from "@preact/signals";
import { FileText } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api.ts";
import { useResource } from "../resource.ts";
import type { Chunk, Document, List } from "../types.ts";
import { Icon, Problem, Sheet } from "../ui/basics.tsx";
import { href } from "../router.ts";

const CHUNKS = 100;
const MOST_REQUESTS = 30;

/** The text of a page, put together from its chunks, which may overlap. Positions count characters, not UTF-16 units. */
export function pageText(chunks: { start: number; end: number; text: string }[]): { text: string[]; from: number } {
  const sorted = [...chunks].sort((a, b) => a.start - b.start);
  const from = sorted[0]?.start ?? 0;
  const text: string[] = [];
  for (const chunk of sorted) {
    const characters = [...chunk.text];
    const at = from + text.length;
    if (chunk.start > at) text.push(..." ".repeat(chunk.start - at));
    text.push(...characters.slice(Math.max(0, from + text.length - chunk.start)));
  }
  return { text, from };
}

async function loadPage(document: string, page: number, signal: AbortSignal): Promise<Chunk[]> {
  const found: Chunk[] = [];
  let after = "";
  for (let request = 0; request < MOST_REQUESTS; request += 1) {
    const part = await call<List<Chunk>>("GET", `/documents/${document}/chunks?limit=${CHUNKS}${after}`, { signal });
    found.push(...part.data.filter((chunk) => chunk.page === page));
    if (!part.has_more || part.next === null || (part.data.at(-1)?.page ?? 0) > page) break;
    after = `&after=${encodeURIComponent(part.next)}`;
  }
  return found;
}

export function PageSheet({ document, name, page, start, end, quote, onClose }: {
  document: string; name: string; page: number; start: number; end: number; quote: string; onClose: () => void;
}) {
  const shown = useSignal(page);
  const record = useResource(`document ${document}`, (signal) => call<Document>("GET", `/documents/${document}`, { signal }));
  const chunks = useResource(`page ${document} ${shown.value}`, (signal) => loadPage(document, shown.value, signal));
  const pages = record.data.value?.pages ?? null;
  const { text, from } = pageText(chunks.data.value ?? []);
  const marked = useRef<HTMLElement>(null);
  useEffect(() => marked.current?.scrollIntoView({ block: "center" }), [chunks.data.value]);
  const cut = (a: number, b: number) => text.slice(Math.max(0, a - from), Math.max(0, b - from)).join("");
  const whole = from + text.length;
  return (
    <Sheet heading={name} onClose={onClose}>
      <div class="bar">
        <span class="hint">Page {shown.value}{pages ? ` of ${pages}` : ""}</span>
        <button type="button" class="small" disabled={shown.value <= 1} onClick={() => (shown.value -= 1)}>Previous page</button>
        <button type="button" class="small" disabled={pages !== null && shown.value >= pages} onClick={() => (shown.value += 1)}>Next page</button>
        {shown.value !== page && <button type="button" class="small" onClick={() => (shown.value = page)}>To the passage</button>}
        {record.data.value && <a class="button small spread" href={href("documents", record.data.value.collection, document)}><Icon of={FileText} size={14} />Document</a>}
      </div>
      <Problem error={chunks.error.value} />
      {chunks.error.value !== null && <blockquote class="page-text"><mark>{quote}</mark></blockquote>}
      {chunks.data.value !== null && (text.length > 0
        ? <p class="page-text" dir="auto">{shown.value === page ? <>{cut(from, start)}<mark ref={marked}>{cut(start, end)}</mark>{cut(end, whole)}</> : text.join("")}</p>
        : <p class="hint">This page has no text.</p>)}
    </Sheet>
  );
}
