// A page of a document with a passage marked on it.

import { useSignal } from "@preact/signals";
import { FileText } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api.ts";
import { useResource } from "../resource.ts";
import { href } from "../router.ts";
import type { Document, PageText } from "../types.ts";
import { Icon, Problem, Sheet, Tabs } from "../ui/basics.tsx";
import { problem } from "../words.ts";
import { PagePicture, usePicture } from "./page_picture.tsx";

const PDF = "application/pdf";

/** Loads the text of a page once its picture is there: with the picture, the server learns where the text is. */
function usePage(document: string, media: string | null, page: number, range: { start: number; end: number } | null) {
  const picture = usePicture(document, media === PDF ? page : null);
  const settled = media !== null && (media !== PDF || picture.data.value !== null || picture.error.value !== null);
  const query = range ? `?start=${range.start}&end=${range.end}` : "";
  const text = useResource(settled ? `text ${document} ${page} ${query}` : null, (signal) => call<PageText>("GET", `/documents/${document}/pages/${page}/text${query}`, { signal }));
  return { picture, text };
}

export function PageSheet({ document, name, page, start, end, quote, onClose }: {
  document: string; name: string; page: number; start: number; end: number; quote: string; onClose: () => void;
}) {
  const shown = useSignal(page);
  const tab = useSignal("picture");
  const record = useResource(`document ${document}`, (signal) => call<Document>("GET", `/documents/${document}`, { signal }));
  const here = shown.value === page;
  const { picture, text } = usePage(document, record.data.value?.media_type ?? null, shown.value, here ? { start, end } : null);
  const pages = record.data.value?.pages ?? null;
  const drawn = record.data.value?.media_type === PDF && picture.error.value === null;
  const loaded = text.data.value;
  const boxes = here ? (loaded?.boxes ?? []) : [];
  return (
    <Sheet heading={name} onClose={onClose}>
      <div class="bar">
        <span class="hint">Page {shown.value}{pages ? ` of ${pages}` : ""}</span>
        <button type="button" class="small" aria-disabled={shown.value <= 1} onClick={() => shown.value > 1 && (shown.value -= 1)}>Previous page</button>
        <button type="button" class="small" aria-disabled={pages !== null && shown.value >= pages} onClick={() => (pages === null || shown.value < pages) && (shown.value += 1)}>Next page</button>
        {!here && <button type="button" class="small" onClick={() => (shown.value = page)}>To the passage</button>}
        {record.data.value && <a class="button small spread" href={href("documents", record.data.value.collection, document)}><Icon of={FileText} size={14} />Document</a>}
      </div>
      {drawn && <Tabs label="How the page is shown" tabs={[["picture", "Page"], ["text", "Text"]]} current={tab.value} onChoose={(name) => (tab.value = name)} />}
      <Problem error={record.error.value ?? text.error.value} />
      {(record.error.value !== null || text.error.value !== null) && <blockquote class="page-text"><mark>{quote}</mark></blockquote>}
      {picture.error.value !== null && <p class="notice">{problem(picture.error.value)}</p>}
      {drawn && tab.value === "picture" && (
        <>
          {picture.data.value === null && <p class="hint" role="status">Drawing the page…</p>}
          {here && loaded !== null && boxes.length === 0 && <p class="notice">Where the passage is on the page is not known. The text has it marked.</p>}
          {picture.data.value && <PagePicture picture={picture.data.value} label={`Page ${shown.value} of ${name}${here ? `, with this passage marked: ${quote}` : ""}`} marks={[{ key: "passage", boxes }]} reveal="passage" />}
        </>
      )}
      {(!drawn || tab.value === "text") && loaded !== null && <MarkedText text={loaded.text} start={here ? start : 0} end={here ? end : 0} />}
    </Sheet>
  );
}

/** A text with a range marked. Positions count characters, not UTF-16 units. */
function MarkedText({ text, start, end }: { text: string; start: number; end: number }) {
  const marked = useRef<HTMLElement>(null);
  useEffect(() => marked.current?.scrollIntoView({ block: "center" }), [text, start]);
  if (!text.trim()) return <p class="hint">This page has no text.</p>;
  const characters = [...text];
  const cut = (from: number, to?: number) => characters.slice(from, to).join("");
  return <p class="page-text" dir="auto">{end > start ? <>{cut(0, start)}<mark ref={marked}>{cut(start, end)}</mark>{cut(end)}</> : text}</p>;
}
