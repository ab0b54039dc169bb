// Jobs: the list with its filters, or one job.

import { useSignal } from "@preact/signals";
import { X } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { ApiError } from "../api.ts";
import { later } from "../later.tsx";
import { useResource, type Resource } from "../resource.ts";
import { href, query, segments, setQuery } from "../router.ts";
import "../start.tsx";
import { collections, loadCollections } from "../store.ts";
import type { Job, JobSummary } from "../types.ts";
import { Empty, Icon, JobState, now, Problem, Time } from "../ui/basics.tsx";
import { VirtualRows } from "../ui/virtual.tsx";
import { duration, JOB_KINDS, JOB_STATUSES, jobKind, jobReason, jobStatus, number } from "../words.ts";
import { Selection } from "./selection.tsx";
import { FILTERS, METADATA, metadataLine, parseMetadata, PERIODS, readFilter, type Filter } from "./filter.ts";
import { loadCounts, loadJobs, reloadJobs, type Counted, type JobPage } from "./server.ts";

const ACTIVE_SECONDS = 2;
const IDLE_SECONDS = 5;
const COLUMNS = "28px 110px minmax(200px, 1fr) 128px minmax(80px, 140px) 160px 100px";
const narrow = matchMedia("(max-width: 640px)");

const JobView = later(async () => (await import("./job.tsx")).JobView);

export function JobsView() {
  const id = segments.value[1];
  return id ? <JobView key={id} id={id} /> : <JobList />;
}

const isOver = (job: JobSummary) => job.ended_at !== null;

/** A list with newer states of some of its jobs. */
function updated(jobs: JobSummary[], fresh: JobSummary[]): JobSummary[] {
  const states = new Map(fresh.map((job) => [job.id, job]));
  return jobs.map((job) => states.get(job.id) ?? job);
}

function JobList() {
  const filter = readFilter(query.value);
  const key = JSON.stringify(filter);
  const older = useRef<AbortController | null>(null);
  const inView = useRef<[number, number]>([0, 0]);
  const list: Resource<JobPage> = useResource<JobPage>(`jobs ${key}`, async (signal, before) => {
    if (before === null) return loadJobs(filter, null, signal);
    const fresh = await reloadJobs(filter, null, before.etag, signal);
    let { jobs, next } = before;
    if (fresh !== null) {
      const last = fresh.jobs.at(-1)?.id;
      const place = jobs.findIndex(({ id }) => id === last);
      const goesOn = place >= 0 && place + 1 < jobs.length;
      jobs = goesOn ? [...fresh.jobs, ...jobs.slice(place + 1)] : fresh.jobs;
      next = goesOn ? next : fresh.next;
    }
    // The first page is fresh. Further down, jobs may have ended too.
    const [first, last] = inView.current;
    const start = Math.max(first, fresh?.jobs.length ?? 0, 1);
    if (jobs.slice(start, last + 1).some((job) => !isOver(job))) {
      jobs = updated(jobs, (await loadJobs(filter, jobs[start - 1]!.id, signal, Math.min(100, last + 1 - start))).jobs);
    }
    // Older jobs may have been loaded meanwhile.
    const meanwhile = list.data.peek() ?? before;
    const added = meanwhile.jobs.slice(before.jobs.length);
    return { jobs: added.length > 0 ? [...jobs, ...added] : jobs, next: added.length > 0 ? meanwhile.next : next, etag: fresh?.etag ?? before.etag };
  }, ({ jobs }) => (jobs.some((job) => !isOver(job)) ? ACTIVE_SECONDS : IDLE_SECONDS));
  const active = (list.data.value?.jobs ?? []).some((job) => !isOver(job));
  const counted = useResource<Counted>(`job counts ${JSON.stringify({ ...filter, status: "" })}`, (signal, before) => loadCounts(filter, before, signal), () => (active && !filter.q ? ACTIVE_SECONDS : IDLE_SECONDS));
  const selected = useSignal<ReadonlySet<string>>(new Set());
  const all = useSignal(false);
  const small = useSignal(narrow.matches);
  const select = (ids: Iterable<string>) => {
    selected.value = new Set(ids);
    all.value = false;
  };
  useEffect(() => {
    if (collections.value === null) void loadCollections();
    const changed = () => (small.value = narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  useEffect(() => {
    select([]);
    older.current?.abort();
    older.current = null;
  }, [key]);

  const jobs = list.data.value?.jobs ?? [];
  const counts = counted.data.value?.counts ?? null;
  const more = () => {
    const page = list.data.value;
    if (page === null || page.next === null || older.current !== null) return;
    const abort = (older.current = new AbortController());
    loadJobs(filter, page.next, abort.signal).then(
      (next) => {
        const before = list.data.value ?? { jobs: [], next: null, etag: null };
        const known = new Set(before.jobs.map(({ id }) => id));
        list.data.value = { ...before, jobs: [...before.jobs, ...next.jobs.filter(({ id }) => !known.has(id))], next: next.next };
        older.current = null;
      },
      (error) => {
        if (older.current === abort) older.current = null;
        if (!(error instanceof ApiError) && !abort.signal.aborted) throw error;
      },
    );
  };
  const changed = () => {
    select([]);
    list.data.value = null;
    list.reload();
    counted.reload();
  };
  const chosen = selected.value.size === 0 ? [] : jobs.filter(({ id }) => selected.value.has(id));
  const selectAll = () => {
    select(jobs.map(({ id }) => id));
    all.value = true;
  };
  const toggle = (id: string) => {
    const next = new Set(selected.peek());
    if (!next.delete(id)) next.add(id);
    select(next);
  };
  const filtered = Object.keys(filter).length > 0;
  const longest = jobs.reduce((most, job) => Math.max(most, waited(job) + ran(job)), 0.001);
  return (
    <section class="view" aria-label="Jobs">
      <div class="view-head">
        <h1>Jobs</h1>
        {filtered && <button type="button" class="quiet" onClick={clearFilters}><Icon of={X} />Clear filters</button>}
      </div>
      <div class="chips" role="group" aria-label="State">
        <Chip pressed={!filter.status} many={counts?.total} partly={counts?.complete === false} onClick={() => setQuery({ status: null })}>All</Chip>
        {JOB_STATUSES.map((status) => (
          <Chip key={status} pressed={filter.status === status} many={counts && (counts.status[status] ?? 0)} partly={counts?.complete === false} onClick={() => setQuery({ status })}>{jobStatus(status)}</Chip>
        ))}
      </div>
      <div class="bar filters" tabIndex={-1}>
        <JobSearch />
        <select aria-label="Kind" value={filter.kind ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value })}><option value="">All kinds</option>{JOB_KINDS.map((kind) => <option key={kind} value={kind}>{jobKind(kind)}</option>)}</select>
        <Choice label="Model" all="All models" value={filter.model} values={Object.keys(counts?.model ?? {}).filter(Boolean)} onChoose={(model) => setQuery({ model })} />
        <Choice label="Collection" all="All collections" value={filter.collection} values={(collections.value ?? []).map(({ name }) => name)} onChoose={(collection) => setQuery({ collection })} />
        <TimeFilter filter={filter} />
        <MetadataFilter key={metadataLine(filter)} filter={filter} />
        {filter.batch && <span class="chip" aria-current="true">Batch {filter.batch.slice(-6)} <button type="button" class="quiet small" aria-label="Show jobs of all batches" onClick={() => setQuery({ batch: null })}><Icon of={X} size={14} /></button></span>}
      </div>
      <Problem error={list.error.value} />
      {chosen.length > 0 && <Selection chosen={chosen} filter={filter} counts={counts} all={all} onAll={selectAll} onChanged={changed} onClear={() => select([])} />}
      {list.data.value === null && list.error.value === null && <p class="hint" role="status">Loading…</p>}
      {list.data.value !== null && jobs.length === 0 && <EmptyJobs filtered={filtered} />}
      {jobs.length > 0 && (
        <VirtualRows count={jobs.length} height={small.value ? 74 : 40} columns={7} template={COLUMNS} label="Jobs" onEnd={more} onView={(first, last) => (inView.current = [first, last])}
          head={
            <div class="grid-head" role="row">
              <div role="columnheader" class="check"><label><input type="checkbox" aria-label="Select all that are loaded" checked={chosen.length > 0 && chosen.length === jobs.length} onChange={(event) => select(event.currentTarget.checked ? jobs.map(({ id }) => id) : [])} /></label></div>
              <div role="columnheader">State</div><div role="columnheader">Job</div><div role="columnheader">Kind</div><div role="columnheader">Model</div><div role="columnheader">Waited → ran</div><div role="columnheader" class="right">Submitted</div>
            </div>
          }
          row={(place) => <JobRow job={jobs[place]!} place={place} selected={selected.value.has(jobs[place]!.id)} small={small.value} longest={longest} onToggle={toggle} />} />
      )}
    </section>
  );
}

interface RowProps {
  job: JobSummary;
  place: number;
  selected: boolean;
  small: boolean;
  longest: number;
  onToggle: (id: string) => void;
}

function JobRow({ job, place, selected, small, longest, onToggle }: RowProps) {
  const why = job.status === "failed" ? jobReason(job) : "";
  return (
    <div class={small ? "grid-row narrow-job" : "grid-row"} role="row" aria-rowindex={place + 2} aria-selected={selected} data-job={job.id}>
      <span role="cell" class="check"><label><input type="checkbox" aria-label={`Select ${name(job)}`} checked={selected} onChange={() => onToggle(job.id)} /></label></span>
      <span role="cell"><JobState status={job.status} cancelling={!isOver(job) && job.cancel_requested_at !== null} /></span>
      <span role="cell" class="two-lines"><a class="row-link" href={href("jobs", job.id)} title={name(job)}>{name(job)}</a>{why && <small class="why" title={why}>{why}</small>}</span>
      <span role="cell" class="hint">{jobKind(job.kind)}</span>
      <span role="cell" class="hint" title={job.model ?? undefined}>{job.model ?? ""}</span>
      <span role="cell" class="tone-cell" title={`waited ${duration(waited(job))}, ran ${duration(ran(job))}`}><Tones job={job} longest={longest} /><span class="hint number">{duration(waited(job) + ran(job))}</span></span>
      <span role="cell" class="right hint"><Time at={job.created_at} /></span>
    </div>
  );
}

/** What a person calls a job. */
export const name = (job: JobSummary | Job) => job.summary || `${jobKind(job.kind)} ${job.id.slice(-6)}`;

const waited = (job: JobSummary) => (job.started_at ?? job.ended_at ?? Math.max(now.value, job.created_at)) - job.created_at;
const ran = (job: JobSummary) => (job.started_at === null ? 0 : (job.ended_at ?? Math.max(now.value, job.started_at)) - job.started_at);

function Tones({ job, longest }: { job: JobSummary; longest: number }) {
  const share = (seconds: number) => `${Math.max(seconds > 0 ? 4 : 0, (seconds / longest) * 100)}%`;
  return <span class="tones" aria-hidden="true"><span class="queue" style={{ width: share(waited(job)) }} /><span class="run" style={{ width: share(ran(job)) }} /></span>;
}

/** A state with the number of its jobs, followed by + if only the newest were counted. */
function Chip({ pressed, many, partly, onClick, children }: { pressed: boolean; many: number | null | undefined; partly: boolean; onClick: () => void; children: string }) {
  return <button type="button" class="chip" aria-pressed={pressed} onClick={onClick}>{children} {many !== null && many !== undefined && <b>{number(many)}{partly ? "+" : ""}</b>}</button>;
}

/** A menu that keeps a value which is not in it, such as one of the address. */
function Choice({ label, all, value, values, onChoose }: { label: string; all: string; value: string | undefined; values: string[]; onChoose: (value: string) => void }) {
  const offered = value && !values.includes(value) ? [value, ...values] : values;
  return <select aria-label={label} value={value ?? ""} onChange={(event) => onChoose(event.currentTarget.value)}><option value="">{all}</option>{offered.map((one) => <option key={one} value={one}>{one}</option>)}</select>;
}

const clearFilters = () => setQuery(Object.fromEntries([...FILTERS, ...Object.keys(readFilter(query.value))].map((name) => [name, null])));

/** When jobs were submitted: within a period up to now, or between two times. */
function TimeFilter({ filter }: { filter: Filter }) {
  const between = useSignal(filter.since !== undefined || filter.until !== undefined);
  const choose = (value: string) => {
    between.value = value === "between";
    setQuery({ within: PERIODS[value] ? value : null, ...(between.value ? {} : { since: null, until: null }) });
  };
  const time = (name: "since" | "until", label: string) => (
    <label class="inline"><span>{label}</span><input type="datetime-local" value={filter[name] ?? ""} onChange={(event) => setQuery({ [name]: event.currentTarget.value })} /></label>
  );
  return (
    <>
      <select aria-label="Submitted" value={filter.within ?? (between.value ? "between" : "")} onChange={(event) => choose(event.currentTarget.value)}>
        <option value="">Any time</option>
        {Object.entries(PERIODS).map(([value, { words }]) => <option key={value} value={value}>{words}</option>)}
        <option value="between">Between…</option>
      </select>
      {between.value && !filter.within && <>{time("since", "From")}{time("until", "to")}</>}
    </>
  );
}

function MetadataFilter({ filter }: { filter: Filter }) {
  const wrong = useSignal<string | null>(null);
  const change = (line: string) => {
    const found = parseMetadata(line);
    wrong.value = typeof found === "string" ? found : null;
    if (typeof found === "string") return;
    const before = Object.keys(filter).filter((name) => name.startsWith(METADATA)).map((name) => [name, null]);
    setQuery({ ...Object.fromEntries(before), ...Object.fromEntries(Object.entries(found).map(([name, value]) => [METADATA + name, value])) });
  };
  return (
    <>
      <input class="metadata" type="text" aria-label="Metadata" placeholder="Metadata: team=search" autocomplete="off" defaultValue={metadataLine(filter)} aria-invalid={wrong.value !== null} aria-describedby={wrong.value === null ? undefined : "metadata-wrong"}
        onChange={(event) => change(event.currentTarget.value)} onKeyDown={(event) => { if (event.key === "Enter") change(event.currentTarget.value); }} />
      {wrong.value !== null && <span id="metadata-wrong" class="amiss" role="alert">{wrong.value}</span>}
    </>
  );
}

function JobSearch() {
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const input = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setQuery({ q: field.current!.value.trim() }), 300);
  };
  const text = query.value.get("q") ?? "";
  useEffect(() => {
    // The address may change in another way, by going back or clearing the filters.
    if (field.current!.value.trim() !== text) field.current!.value = text;
  }, [text]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return <input ref={field} type="search" maxLength={120} aria-label="Search jobs" placeholder="Search prompts and names" defaultValue={text} onInput={input} />;
}

function EmptyJobs({ filtered }: { filtered: boolean }) {
  if (filtered) return <Empty><h2>No job matches</h2><p>All jobs were looked through. <button type="button" class="small" onClick={clearFilters}>Clear filters</button></p></Empty>;
  return <Empty><h2>No jobs yet</h2><p>Every question of the chat, every document and every call of the API becomes a job that you can watch here. <a href="/">Ask something</a>, or see the <a href="/docs">API reference</a>.</p></Empty>;
}
