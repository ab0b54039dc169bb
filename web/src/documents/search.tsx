// Search in a collection: the question, the kind of search, a filter, and the passages that are found.

import { useSignal } from "@preact/signals";
import { Search as SearchIcon, X } from "lucide";
import { useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { useResource } from "../resource.ts";
import { query, setQuery } from "../router.ts";
import type { Hit, Job, SearchExplanation } from "../types.ts";
import { Icon, IconButton, Problem } from "../ui/basics.tsx";
import { count, duration, number, ordinal, pageOf } from "../words.ts";
import { parseFilter } from "./filter.ts";
import { PageSheet } from "./page_sheet.tsx";

export function SearchForm({ text, collection }: { text: string; collection: string }) {
  const field = useRef<HTMLInputElement>(null);
  const mode = query.value.get("mode") ?? "hybrid";
  const many = query.value.get("k") ?? "10";
  const filter = query.value.get("filter") ?? "";
  const parsed = parseFilter(filter);
  return (
    <form class={text ? "bar search-bar active" : "bar search-bar"} role="search" onSubmit={(event) => { event.preventDefault(); setQuery({ q: field.current!.value.trim() }); }}>
      <input ref={field} type="search" aria-label={`Search ${collection}`} placeholder="Search the texts" defaultValue={text} onInput={(event) => event.currentTarget.value === "" && setQuery({ q: null })} />
      {text && <><select aria-label="Kind of search" value={mode} onChange={(event) => setQuery({ mode: event.currentTarget.value })}><option value="hybrid">Meaning and words</option><option value="vector">Meaning</option><option value="keyword">Words</option></select>
      <select aria-label="Number of hits" value={many} onChange={(event) => setQuery({ k: event.currentTarget.value })}>{["5", "10", "25", "50"].map((one) => <option key={one} value={one}>{one} hits</option>)}</select>
      <input type="text" class="search-filter" aria-label="Filter of the search" aria-invalid={parsed !== null && "wrong" in parsed} placeholder="Filter: page<=3" title="Fields are page, name, size, media_type, created_at and those of the metadata. A comma means and." defaultValue={filter} onChange={(event) => setQuery({ filter: event.currentTarget.value.trim() || null })} />
      <label class="search-explain"><input type="checkbox" checked={query.value.get("explain") === "1"} onChange={(event) => setQuery({ explain: event.currentTarget.checked ? "1" : null })} />Explain</label></>}
      <button type="submit"><Icon of={SearchIcon} />Search</button>
      {text && <IconButton icon={X} label="Close the search" onClick={() => setQuery({ q: null, filter: null, explain: null })} />}
    </form>
  );
}

/** A text with the words of a query marked. */
export function Marked({ text, words }: { text: string; words: string }) {
  const all = [...new Set(words.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])].sort((a, b) => b.length - a.length).slice(0, 40);
  // Short words are mostly articles and the like, which are everywhere.
  const long = all.filter((word) => word.length > 3 || /[^a-z]/.test(word));
  const wanted = long.length > 0 ? long : all;
  if (wanted.length === 0) return <>{text}</>;
  const parts = text.split(new RegExp(`((?<![\\p{L}\\p{N}])(?:${wanted.join("|")})[\\p{L}\\p{N}]*)`, "giu"));
  return <>{parts.map((part, place) => (place % 2 === 1 ? <mark key={place}>{part}</mark> : part))}</>;
}

interface Passages {
  data: Hit[];
  warnings: string[];
  explain?: SearchExplanation | null;
}

/** The score that the hits are ordered by. */
const orderScore = (hit: Hit) => hit.rerank_score ?? hit.score;

/** What each step of a search had and left out. */
function explainSearch({ chunks, lists, candidates, filter, removed, rerank }: SearchExplanation): string {
  const names: Record<string, string> = { vector: "by meaning", keyword: "by words" };
  const parts = [`${count(chunks, "chunk")} in the index`, ...Object.entries(lists).map(([name, length]) => `${number(length)} ${names[name] ?? name}`), count(candidates, "candidate")];
  if (filter.length > 0) parts.push(`the filter left out ${number(removed.filter)} (${filter.map((part) => `${part.condition}: ${number(part.removed)}`).join(", ")})`);
  if (removed.not_ready > 0) parts.push(`${number(removed.not_ready)} of documents that are not ready`);
  if (rerank?.applied) parts.push(`${rerank.model} ranked ${number(rerank.candidates)} in ${duration(rerank.seconds)}`);
  return `${parts.join("; ")}.`;
}

/** The ranks of a hit in each list. */
function explainHit({ vector, keyword, fused, rerank }: NonNullable<Hit["explain"]>): string {
  const place = (name: string, one: { rank: number; score: number } | null | undefined) => `${name} ${one ? `${ordinal(one.rank)} (${one.score.toFixed(3)})` : "–"}`;
  const parts = [place("meaning", vector), place("words", keyword)];
  if (fused !== null) parts.push(`together ${fused.toFixed(3)}`);
  if (rerank) parts.push(place("reranker", rerank));
  return parts.join(" · ");
}

async function findPassages(collection: string, json: object, signal: AbortSignal): Promise<Passages> {
  const answer = await call<Passages | Job>("POST", `/collections/${encodeURIComponent(collection)}/search`, { json, signal });
  if ("data" in answer) return answer;
  // All workers are busy: the answer is the job of the search.
  let job = answer;
  while (job.ended_at === null) job = await call<Job>("GET", `/jobs/${job.id}?wait=30`, { signal });
  if (job.error !== null) throw new ApiError(job.error.message, job.error.code, 500);
  const result = job.result as { hits?: Hit[]; warnings?: string[]; explain?: SearchExplanation } | null;
  return { data: result?.hits ?? [], warnings: result?.warnings ?? [], explain: result?.explain ?? null };
}

export function SearchHits({ collection, text }: { collection: string; text: string }) {
  const mode = query.value.get("mode") ?? "hybrid";
  const many = Number(query.value.get("k") ?? 10);
  const open = useSignal<Hit | null>(null);
  const line = query.value.get("filter") ?? "";
  const filter = parseFilter(line);
  const wrong = filter !== null && "wrong" in filter ? filter.wrong : null;
  const explain = query.value.get("explain") === "1";
  const { data, error } = useResource(wrong === null ? `search ${collection} ${text} ${mode} ${many} ${line} ${explain}` : null,
    (signal) => findPassages(collection, { query: text, mode, top_k: many, explain, ...(filter ? { filter } : {}) }, signal));
  const hits = data.value?.data ?? [];
  const best = Math.max(...hits.map(orderScore), 0.0001);
  return (
    <div class="search-results">
      <Problem error={error.value} />
      {wrong !== null && <p class="notice bad" role="alert">“{wrong}” is not a condition. Write a field, one of = != &lt; &lt;= &gt; &gt;=, and a value, such as page&lt;=3.</p>}
      {wrong === null && data.value === null && error.value === null && <p class="hint" role="status">Searching…</p>}
      {data.value?.warnings?.map((words) => <p class="notice" key={words}>{words}</p>)}
      {data.value !== null && <p class="hint" role="status">{hits.length === 0 ? "No passage found." : `${count(hits.length, "passage")}, the best first. The bar compares them with the best one; it does not say how good that is.`}</p>}
      {data.value?.explain && <p class="hint">{explainSearch(data.value.explain)}</p>}
      <ol class="hits" aria-label="Passages found">
        {hits.map((hit) => (
          <li key={hit.chunk_id}>
            <button type="button" class="hit" onClick={() => (open.value = hit)}>
              <header><strong>{hit.document}</strong><span>{pageOf(hit)}</span><span class="meter" aria-hidden="true"><span style={{ width: `${Math.max(2, (orderScore(hit) / best) * 100)}%` }} /></span><span class="number">{hit.rerank_score != null && `reranker ${hit.rerank_score.toFixed(2)} · `}{mode} {hit.score.toFixed(2)}</span></header>
              {hit.explain && <p class="hint">{explainHit(hit.explain)}</p>}
              <p dir="auto"><Marked text={hit.text} words={text} /></p>
            </button>
          </li>
        ))}
      </ol>
      {open.value && <PageSheet key={open.value} document={open.value.document_id} name={open.value.document} page={open.value.page} start={open.value.start} end={open.value.end} quote={open.value.text} onClose={() => (open.value = null)} />}
    </div>
  );
}
