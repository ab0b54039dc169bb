// Jobs: the list with its filters, or one job.

import { useSignal } from "@preact/signals";
import { Ban, RotateCcw, Trash2, X } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { useResource } from "../resource.ts";
import { href, query, segments, setQuery } from "../router.ts";
import { loadModels, models } from "../store.ts";
import type { Job } from "../types.ts";
import { attempt, confirmed, Empty, Icon, IconButton, JobState, now, Problem, Time, toast } from "../ui/basics.tsx";
import { VirtualRows } from "../ui/virtual.tsx";
import { count, duration, JOB_STATUSES, jobStatus, number, readable, title } from "../words.ts";
import { JobView } from "./job.tsx";
import { FILTERS, forEachJob, loadJobs, type Filter, type JobPage } from "./server.ts";

const ACTIVE_SECONDS = 2;
const IDLE_SECONDS = 5;
const KINDS = ["generate", "ingest", "search", "delete", "reindex", "unpack", "batch", "embed", "tokenize"];
const COLUMNS = "28px 110px minmax(200px, 1fr) 84px minmax(80px, 140px) 160px 100px";
const narrow = matchMedia("(max-width: 640px)");

export function JobsView() {
  const id = segments.value[1];
  return id ? <JobView key={id} id={id} /> : <JobList />;
}

const isOver = (job: Job) => job.ended_at !== null;
const retryable = (job: Job) => isOver(job) && job.kind !== "batch" && job.status !== "completed";

function JobList() {
  const filter: Filter = {};
  for (const name of FILTERS) {
    const value = query.value.get(name);
    if (value) filter[name] = value;
  }
  const key = JSON.stringify(filter);
  const older = useRef<AbortController | null>(null);
  const list = useResource<JobPage>(`jobs ${key}`, async (signal, before) => {
    if (before === null) return loadJobs(filter, null, signal);
    // Mostly nothing has changed: one job tells whether there are new ones, and those under way are asked for.
    const active = before.jobs.some((job) => !isOver(job));
    const [first] = active ? [] : (await loadJobs(filter, null, signal, 1)).jobs;
    if (!active && first?.id === before.jobs[0]?.id) return before;
    const fresh = await loadJobs(filter, null, signal);
    const last = fresh.jobs.at(-1)?.id;
    const place = before.jobs.findIndex(({ id }) => id === last);
    return place < 0 || place + 1 >= before.jobs.length ? fresh : { jobs: [...fresh.jobs, ...before.jobs.slice(place + 1)], next: before.next };
  }, ({ jobs }) => (jobs.some((job) => !isOver(job)) ? ACTIVE_SECONDS : IDLE_SECONDS));
  const selected = useSignal<ReadonlySet<string>>(new Set());
  const small = useSignal(narrow.matches);
  useEffect(() => {
    if (models.value === null) void loadModels();
    const changed = () => (small.value = narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  useEffect(() => {
    selected.value = new Set();
    older.current?.abort();
    older.current = null;
  }, [key]);

  const jobs = list.data.value?.jobs ?? [];
  const more = () => {
    const page = list.data.value;
    if (page === null || page.next === null || older.current !== null) return;
    const abort = (older.current = new AbortController());
    loadJobs(filter, page.next, abort.signal).then(
      (next) => {
        const known = new Set((list.data.value?.jobs ?? []).map(({ id }) => id));
        list.data.value = { jobs: [...(list.data.value?.jobs ?? []), ...next.jobs.filter(({ id }) => !known.has(id))], next: next.next };
        older.current = null;
      },
      (error) => {
        if (older.current === abort) older.current = null;
        if (!(error instanceof ApiError) && !abort.signal.aborted) throw error;
      },
    );
  };
  const chosen = jobs.filter(({ id }) => selected.value.has(id));
  const act = (words: string, some: Job[], action: (job: Job) => Promise<unknown>) => attempt(async () => {
    const { done, refused } = await forEachJob(some, action);
    toast(`${count(done, "job")} ${words}${refused.length > 0 ? `, ${number(refused.length)} refused: ${refused[0]}` : ""}.`.replace("..", "."), { bad: refused.length > 0 });
    selected.value = new Set();
    list.data.value = null;
    list.reload();
  });
  const removing = async (some: Job[]) => {
    if (await confirmed(`Delete ${count(some.length, "job")} with their results? This cannot be taken back.`, "Delete")) await act("deleted", some, (job) => call("DELETE", `/jobs/${job.id}`));
  };
  const toggle = (id: string) => {
    const next = new Set(selected.value);
    if (!next.delete(id)) next.add(id);
    selected.value = next;
  };
  const filtered = Object.keys(filter).length > 0;
  const longest = Math.max(...jobs.map((job) => waited(job) + ran(job)), 0.001);
  return (
    <section class="view" aria-label="Jobs">
      <div class="view-head">
        <h1>Jobs</h1>
        {filtered && <button type="button" class="quiet" onClick={() => setQuery(Object.fromEntries(FILTERS.map((name) => [name, null])))}><Icon of={X} />Clear filters</button>}
      </div>
      <div class="chips" role="group" aria-label="State">
        <button type="button" class="chip" aria-pressed={!filter.status} onClick={() => setQuery({ status: null })}>All</button>
        {JOB_STATUSES.map((status) => (
          <button key={status} type="button" class="chip" aria-pressed={filter.status === status} onClick={() => setQuery({ status })}>{jobStatus(status)}</button>
        ))}
      </div>
      <div class="bar">
        <select aria-label="Kind" value={filter.kind ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value })}><option value="">All kinds</option>{KINDS.map((kind) => <option key={kind} value={kind}>{title(kind)}</option>)}</select>
        <select aria-label="Model" value={filter.model ?? ""} onChange={(event) => setQuery({ model: event.currentTarget.value })}><option value="">All models</option>{(models.value ?? []).map(({ name }) => <option key={name} value={name}>{name}</option>)}</select>
        {filter.batch && <span class="chip" aria-current="true">Batch {filter.batch.slice(-6)} <button type="button" class="quiet small" aria-label="Show jobs of all batches" onClick={() => setQuery({ batch: null })}><Icon of={X} size={14} /></button></span>}
      </div>
      <Problem error={list.error.value} />
      {chosen.length > 0 && (
        <div class="selection" role="group" aria-label="Selection">
          <span>{number(chosen.length)} selected</span>
          <button type="button" class="small" disabled={!chosen.some((job) => !isOver(job))} onClick={() => act("cancelled", chosen.filter((job) => !isOver(job)), (job) => call("POST", `/jobs/${job.id}/cancel`))}><Icon of={Ban} size={14} />Cancel</button>
          <button type="button" class="small" disabled={!chosen.some(retryable)} onClick={() => act("started again", chosen.filter(retryable), (job) => call("POST", `/jobs/${job.id}/retry`, { json: {} }))}><Icon of={RotateCcw} size={14} />Retry</button>
          <button type="button" class="small danger" disabled={!chosen.some(isOver)} onClick={() => removing(chosen.filter(isOver))}><Icon of={Trash2} size={14} />Delete</button>
          <IconButton icon={X} label="Select nothing" onClick={() => (selected.value = new Set())} />
        </div>
      )}
      {list.data.value === null && list.error.value === null && <p class="hint" role="status">Loading…</p>}
      {list.data.value !== null && jobs.length === 0 && <EmptyJobs filtered={filtered} />}
      {jobs.length > 0 && (
        <VirtualRows count={jobs.length} height={small.value ? 74 : 40} columns={7} label="Jobs" onEnd={more}
          head={
            <div class="grid-head" role="row" style={{ "--columns": COLUMNS } as any}>
              <div role="columnheader" class="check"><label><input type="checkbox" aria-label="Select all that are loaded" checked={chosen.length > 0 && chosen.length === jobs.length} onChange={(event) => (selected.value = new Set(event.currentTarget.checked ? jobs.map(({ id }) => id) : []))} /></label></div>
              <div role="columnheader">State</div><div role="columnheader">Job</div><div role="columnheader">Kind</div><div role="columnheader">Model</div><div role="columnheader">Waited → ran</div><div role="columnheader" class="right">Submitted</div>
            </div>
          }
          row={(place) => {
            const job = jobs[place]!;
            const why = job.status === "failed" ? readable(job.error?.message ?? job.error?.code ?? "") : "";
            return (
              <div class={small.value ? "grid-row narrow-job" : "grid-row"} role="row" aria-rowindex={place + 2} aria-selected={selected.value.has(job.id)} data-job={job.id} style={small.value ? undefined : ({ "--columns": COLUMNS } as any)}>
                <span role="cell" class="check"><label><input type="checkbox" aria-label={`Select ${name(job)}`} checked={selected.value.has(job.id)} onChange={() => toggle(job.id)} /></label></span>
                <span role="cell"><JobState status={job.status} cancelling={!isOver(job) && job.cancel_requested_at !== null} /></span>
                <span role="cell" class="two-lines"><a class="row-link" href={href("jobs", job.id)} title={name(job)}>{name(job)}</a>{why && <small class="why" title={why}>{why}</small>}</span>
                <span role="cell" class="hint">{title(job.kind)}</span>
                <span role="cell" class="hint" title={job.model ?? undefined}>{job.model ?? ""}</span>
                <span role="cell" class="tone-cell" title={`waited ${duration(waited(job))}, ran ${duration(ran(job))}`}><Tones job={job} longest={longest} /><span class="hint number">{duration(waited(job) + ran(job))}</span></span>
                <span role="cell" class="right hint"><Time at={job.created_at} /></span>
              </div>
            );
          }} />
      )}
    </section>
  );
}

/** What a person calls a job. */
export const name = (job: Job) => job.summary || `${title(job.kind)} ${job.id.slice(-6)}`;

export const waited = (job: Job) => (job.started_at ?? job.ended_at ?? Math.max(now.value, job.created_at)) - job.created_at;
export const ran = (job: Job) => (job.started_at === null ? 0 : (job.ended_at ?? Math.max(now.value, job.started_at)) - job.started_at);

function Tones({ job, longest }: { job: Job; longest: number }) {
  const share = (seconds: number) => `${Math.max(seconds > 0 ? 4 : 0, (seconds / longest) * 100)}%`;
  return <span class="tones" aria-hidden="true"><span class="queue" style={{ width: share(waited(job)) }} /><span class="run" style={{ width: share(ran(job)) }} /></span>;
}

function EmptyJobs({ filtered }: { filtered: boolean }) {
  if (filtered) return <Empty><h2>No job matches</h2><p>All jobs were looked through. <button type="button" class="small" onClick={() => setQuery(Object.fromEntries(FILTERS.map((one) => [one, null])))}>Clear filters</button></p></Empty>;
  return <Empty><h2>No jobs yet</h2><p>Every question of the chat, every document and every call of the API becomes a job that you can watch here. <a href="/">Ask something</a>, or see the <a href="/docs">API reference</a>.</p></Empty>;
}
