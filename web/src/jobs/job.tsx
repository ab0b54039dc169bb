// One job: its state, its waterfall, and its output, request, events and deliveries.

import { signal, useSignal, useSignalEffect } from "@preact/signals";
import { Ban, ChevronLeft, Copy, RotateCcw, Trash2 } from "lucide";
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError, call, followEvents, type JobEvent } from "../api.ts";
import { identity, signedIn } from "../key.ts";
import { PageSheet } from "../documents/page_sheet.tsx";
import { useResource } from "../resource.ts";
import { go, href, query, setQuery } from "../router.ts";
import type { Citation, Delivery, Job, List } from "../types.ts";
import { attempt, confirmed, CopyButton, Icon, JobState, now, Problem, Tabs, toast } from "../ui/basics.tsx";
import { Markdown } from "../ui/markdown.tsx";
import { count, duration, jobKind, jobReason, jobStatus, number, ordinal, pageOf, roughly, title, waitReason } from "../words.ts";
import { asCurl, type Request } from "./curl.ts";
import { Deliveries as DeliveryRows } from "./deliveries.tsx";
import { eventText } from "./event_text.ts";
import { lanes, PHASES, type Span } from "./lanes.ts";
import { RequestTab } from "./request.tsx";
import { name } from "./view.tsx";

const LOOK_SECONDS = 1.5;
const TEXT_KINDS = new Set(["generate"]);

/** The events of a job, as they come. */
function useEvents(id: string, wanted: boolean) {
  const [events] = useState(() => signal<JobEvent[]>([]));
  const version = identity.value;
  useEffect(() => {
    if (!wanted) return;
    const abort = new AbortController();
    let fresh: JobEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      events.value = [...events.value, ...fresh];
      fresh = [];
    };
    events.value = [];
    followEvents(id, {
      signal: abort.signal,
      onEvent: (event) => {
        fresh.push(event);
        timer ??= setTimeout(flush, 50);
      },
    }).catch((error) => {
      if (!(error instanceof ApiError) && !abort.signal.aborted) throw error;
    });
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [id, wanted, version]);
  return events;
}

export function JobView({ id }: { id: string }) {
  const { data, error, reload } = useResource<Job>(`job ${id}`, (abort) => call<Job>("GET", `/jobs/${encodeURIComponent(id)}`, { signal: abort }), (job) => (job.ended_at === null ? LOOK_SECONDS : 0));
  const job = data.value;
  const events = useEvents(id, job !== null && job.kind !== "batch");
  const asked = useResource(job !== null && job.kind !== "batch" ? `request ${id}` : null, (abort) => call<{ request: Request | null }>("GET", `/jobs/${id}/request`, { signal: abort }));
  const request = asked.data.value?.request ?? null;
  // Its place is kept, so that nothing moves when the request arrives.
  const requestComes = job !== null && job.kind !== "batch" && asked.data.value === null && asked.error.value === null;
  const busy = useSignal(false);
  const curl = job?.kind === "generate" && request !== null ? asCurl(request, { server: location.origin, signedIn: signedIn.value }) : null;
  useSignalEffect(() => {
    // The stream tells the end before the next look does.
    if (events.value.some(({ type }) => type === "ended") && data.peek()?.ended_at === null) reload();
  });
  const back = <a class="button quiet" href="/ui/jobs"><Icon of={ChevronLeft} />All jobs</a>;
  if (job === null) {
    return <section class="view" aria-label="Job"><div class="view-head">{back}</div><h1 class="unseen">Job</h1><Problem error={error.value} />{error.value === null && <p class="hint" role="status">Loading…</p>}</section>;
  }
  const over = job.ended_at !== null;
  const tab = query.value.get("tab") ?? "output";
  const tabs: [string, string][] = [["output", "Output"]];
  if (request !== null || requestComes) tabs.push(["request", "Request"]);
  if (job.kind !== "batch") tabs.push(["events", `Events ${events.value.length > 0 ? events.value.length : ""}`.trim()]);
  tabs.push(["deliveries", "Deliveries"], ["json", "JSON"]);
  const cancel = () => job.cancel_requested_at === null && attempt(async () => {
    try {
      await call("POST", `/jobs/${id}/cancel`);
    } catch (caught) {
      if (!(caught instanceof ApiError) || caught.code !== "job_ended") throw caught;
    }
    // The answer of the call is older than what the next look returns, so only that is shown.
    reload();
  });
  // The button that had the focus is gone with its job.
  const leaveFor = (path: string) => {
    go(path);
    document.getElementById("main")!.focus();
  };
  const retry = async () => {
    if (busy.value) return;
    busy.value = true;
    await attempt(async () => {
      const next = await call<Job>("POST", `/jobs/${id}/retry`, { json: {} });
      toast("The job runs again as a new job.");
      leaveFor(href("jobs", next.id));
    });
    busy.value = false;
  };
  const remove = async () => {
    if (!(await confirmed("Delete this job with its result, events and deliveries? This cannot be taken back.", "Delete"))) return;
    if (await attempt(() => call("DELETE", `/jobs/${id}`))) {
      toast("The job is deleted.");
      leaveFor("/ui/jobs");
    }
  };
  return (
    <section class="view" aria-label="Job">
      <div class="job">
        <div class="view-head">{back}
          <span class="spread" />
          {/* One button, so that the focus stays on it when the job ends, and never disabled, which would take the focus. */}
          {(!over || job.kind !== "batch") && <button type="button" aria-disabled={over ? busy.value : job.cancel_requested_at !== null} onClick={over ? retry : cancel}><Icon of={over ? RotateCcw : Ban} />{over ? "Retry" : "Cancel"}</button>}
          {requestComes && job.kind === "generate" && <button type="button" disabled><Icon of={Copy} />Copy as curl</button>}
          {curl !== null && <CopyButton icon={false} label="Copy as curl" text={curl} />}
          {over && <button type="button" class="danger" onClick={remove}><Icon of={Trash2} />Delete</button>}
        </div>
        <h1>{name(job)}</h1>
        <p class="job-line"><span id="job-status" role="status"><JobState status={job.status} cancelling={!over && job.cancel_requested_at !== null} /></span> <span class="hint">{line(job)}</span></p>
        {job.status === "queued" && <p class="notice">{waitingLine(job)}</p>}
        {job.status === "in_progress" && progressLine(job) && <p class="notice">{progressLine(job)}</p>}
        <Problem error={error.value} />
        {job.error && <div class="notice bad" role="alert"><strong>{jobReason(job)}</strong>{ERROR_HELP[job.error.code] && <><br /><span>{ERROR_HELP[job.error.code]}</span></>}<br /><small>Code <code>{job.error.code}</code></small></div>}
        {job.kind !== "batch" && <Waterfall job={job} events={events.value} />}
        <Tabs label="Parts of the job" tabs={tabs} current={tab} onChoose={(next) => setQuery({ tab: next === "output" ? null : next })} />
        <div role="tabpanel" aria-label={tabs.find(([one]) => one === tab)?.[1] ?? "Output"}>
          {tab === "output" && <Output job={job} events={events.value} />}
          {tab === "request" && request !== null && <RequestTab request={request} />}
          {tab === "events" && <Events job={job} events={events.value} />}
          {tab === "deliveries" && <Deliveries job={job} />}
          {tab === "json" && <pre class="raw" tabIndex={0} role="region" aria-label="JSON of the job">{JSON.stringify(job, null, 2)}</pre>}
        </div>
      </div>
    </section>
  );
}

const ERROR_HELP: Record<string, string> = {
  prompt_too_long: "Shorten the prompt, or choose a model with a longer context.",
  encrypted: "Open the document and enter its password.",
  timeout: "It took longer than the request allowed. Send it again with a longer timeout.",
};

function line(job: Job): string {
  const parts = [jobKind(job.kind), job.model ?? ""];
  if (job.timings.total !== null) parts.push(`took ${duration(job.timings.total)}`);
  if (job.attempts.some(({ outcome }) => outcome === "lost")) parts.push(`${count(job.attempts.filter(({ outcome }) => outcome === "lost").length, "attempt")} lost`);
  return parts.filter(Boolean).join(" · ");
}

function waitingLine(job: Job): string {
  const place = !job.queue_position ? "In line" : job.queue_position === 1 ? "Next in line" : `${ordinal(job.queue_position)} in line`;
  const time = job.estimated_wait ? `, ${roughly(job.estimated_wait.seconds)}` : "";
  return `${place}${time}${job.waiting_for ? `, waiting ${waitReason(job.waiting_for)}` : ""}.`;
}

function progressLine(job: Job): string {
  const progress = job.progress;
  // Of a cited answer the search is long over while the model writes.
  if (!progress || !progress.total || job.attempts.at(-1)?.queue.startsWith("gpu.")) return "";
  return `${title(progress.phase)}: ${number(progress.done)} of ${number(progress.total)} ${progress.unit}.`;
}

function Waterfall({ job, events }: { job: Job; events: JobEvent[] }) {
  const until = Math.max(job.ended_at ?? Math.max(now.value, job.started_at ?? job.created_at), job.created_at + 0.001);
  const rows = lanes(job, events, until);
  const whole = until - job.created_at;
  const used = new Set(rows.flatMap(({ spans }) => spans.map(({ phase }) => phase)));
  return (
    <section aria-label="Timeline">
      <div class="waterfall">
        {rows.map((lane) => (
          <div class="lane" key={lane.title}>
            <span><strong>{lane.title}</strong>{lane.worker && <><br /><span class="hint">{lane.worker}</span></>}</span>
            <span class="track" role="img" aria-label={lane.spans.map(({ phase, from, to }) => `${PHASES[phase]} ${duration(to - from)}`).join(", ")}>
              {lane.spans.map(({ phase, from, to }) => <span key={phase} class="span" data-phase={phase} title={`${PHASES[phase]}: ${duration(to - from)}`} style={{ left: `${((from - job.created_at) / whole) * 100}%`, width: `${((to - from) / whole) * 100}%` }} />)}
            </span>
            <span class="hint number">{duration(lane.spans.reduce((sum, { from, to }) => sum + to - from, 0))}</span>
            {lane.note && <span class="hint lane-note">{lane.note}</span>}
          </div>
        ))}
      </div>
      <p class="keys">{(Object.keys(PHASES) as Span["phase"][]).filter((phase) => used.has(phase)).map((phase) => <span class="key" data-phase={phase} key={phase}>{PHASES[phase]}</span>)}</p>
    </section>
  );
}

function streamedText(events: JobEvent[]): string {
  let text = "";
  for (const { type, data } of events) {
    if (type === "restart") text = "";
    else if (type === "delta") text += data.text ?? "";
  }
  return text;
}

function Output({ job, events }: { job: Job; events: JobEvent[] }) {
  const cited = useSignal<Citation | null>(null);
  const result = job.result as Record<string, any> | null;
  if (TEXT_KINDS.has(job.kind)) {
    const text = result?.["text"] ?? streamedText(events);
    const citations = (result?.["citations"] ?? []) as Citation[];
    return (
      <>
        {text ? <div class="answer card" aria-busy={job.ended_at === null}><Markdown text={text} /></div> : <p class="hint">{job.ended_at === null ? "No text yet." : "There is no text."}</p>}
        {result?.["usage"] && <p class="hint">{count(result["usage"].prompt_tokens, "token")} read, {count(result["usage"].completion_tokens, "token")} written{result["finish_reason"] === "length" ? ", cut off at the length limit" : ""}</p>}
        {citations.length > 0 && <div class="sources" role="group" aria-label="Passages">{citations.map((one) => <button key={one.marker} type="button" class="small" onClick={() => (cited.value = one)}><span>{one.marker} {one.document}, {pageOf(one)}</span></button>)}</div>}
        {cited.value && <PageSheet key={cited.value} document={cited.value.document_id} name={cited.value.document} page={cited.value.page} start={cited.value.start} end={cited.value.end} quote={cited.value.quote} onClose={() => (cited.value = null)} />}
      </>
    );
  }
  if (job.kind === "batch") {
    const counts = (job as unknown as { counts?: Record<string, number> }).counts;
    return (
      <>
        {counts && <BatchCounts counts={counts} batch={job.id} />}
        <p><a class="button" href={href("jobs", { batch: job.id })}>Jobs of this batch</a></p>
        {!(job as unknown as { sealed?: boolean }).sealed && job.ended_at === null && <p class="hint">More files may join it.</p>}
      </>
    );
  }
  if (result === null) return <p class="hint">{job.ended_at === null ? "There is no result yet." : "There is no result."}</p>;
  if (Array.isArray(result["hits"])) return <ol class="hits">{result["hits"].map((hit: any) => <li class="card" key={hit.chunk_id}><p class="hint">{hit.document}, page {hit.page}, {hit.score.toFixed(2)}</p><p>{hit.text}</p></li>)}</ol>;
  return (
    <>
      <dl class="facts">{Object.entries(result).filter(([, value]) => value !== null && typeof value !== "object").map(([word, value]) => <Fact key={word} name={title(word.replaceAll("_", " "))}>{word === "document_id" ? <DocumentLink id={String(value)} /> : typeof value === "number" ? number(value) : String(value)}</Fact>)}</dl>
      {Array.isArray(result["members"]) && <ul>{result["members"].slice(0, 200).map((member: any) => <li key={member.document_id}><DocumentLink id={member.document_id} name={member.name} /></li>)}</ul>}
      {Array.isArray(result["skipped_members"]) && result["skipped_members"].length > 0 && <ul>{result["skipped_members"].slice(0, 200).map((member: any) => <li key={member.name}>{member.name}: {member.reason}</li>)}</ul>}
    </>
  );
}

/** How far a batch is, and a way to its jobs in each state. */
function BatchCounts({ counts: { total = 0, ...states }, batch }: { counts: Record<string, number>; batch: string }) {
  const over = ["completed", "failed", "cancelled", "expired"].reduce((sum, status) => sum + (states[status] ?? 0), 0);
  return (
    <>
      <div class="meters batch"><div><div><span>Ended</span><span class="number">{number(over)} of {number(total)}</span></div><progress aria-label="Jobs that ended" max={Math.max(1, total)} value={over} /></div></div>
      <dl class="facts">{Object.entries(states).filter(([, many]) => many > 0).map(([status, many]) => <Fact key={status} name={jobStatus(status)}><a class={status === "failed" ? "amiss" : undefined} href={href("jobs", { batch, status })}>{count(many, "job")}</a></Fact>)}</dl>
    </>
  );
}

export function Fact({ name: word, children }: { name: string; children: ComponentChildren }) {
  return <><dt>{word}</dt><dd>{children}</dd></>;
}

function DocumentLink({ id, name: known }: { id: string; name?: string }) {
  const { data } = useResource(known ? null : `document ${id}`, async (abort) => call<{ name: string; collection: string }>("GET", `/documents/${id}`, { signal: abort }));
  if (data.value === null) return <>{known ?? id}</>;
  return <a href={href("documents", data.value.collection, id)}>{data.value.name}</a>;
}

const EVENT_WORDS: Record<string, string> = { queued: "Queued", started: "Started", delta: "Text", progress: "Progress", attempt_lost: "Attempt lost", requeued: "Queued again", restart: "Text discarded", ended: "Ended" };

function Events({ job, events }: { job: Job; events: JobEvent[] }) {
  // Pieces of text in a row are one line.
  const rows: { key: number; at: number; type: string; text: string }[] = [];
  for (const { id, type, data } of events) {
    const previous = rows.at(-1);
    if (type === "delta") {
      const piece = data.text ?? data.reasoning ?? "";
      if (previous?.type === "delta") previous.text += piece;
      else rows.push({ key: id, at: data.at, type, text: piece });
      continue;
    }
    rows.push({ key: id, at: data.at, type, text: eventText(type, data) });
  }
  if (rows.length === 0) return <p class="hint">No events yet, or they are no longer kept.</p>;
  return <ol class="events">{rows.map(({ key, at, type, text }) => <li key={key}><span class="hint number">+{duration(at - job.created_at)}</span><span>{EVENT_WORDS[type] ?? title(type)}</span><span>{text.slice(0, 400)}{text.length > 400 ? "…" : ""}</span></li>)}</ol>;
}

function Deliveries({ job }: { job: Job }) {
  const { data, error, reload } = useResource(`deliveries ${job.id} ${job.status}`, (abort) => call<List<Delivery>>("GET", `/jobs/${job.id}/deliveries`, { signal: abort }), ({ data: list }) => (list.some(({ status }) => status === "pending") ? 2 : 0));
  if (data.value === null) return <Problem error={error.value} />;
  if (data.value.data.length === 0) return <p class="hint">No webhook was told about this job. <a href="/ui/webhooks">Webhooks</a></p>;
  return <DeliveryRows label="Deliveries of this job" deliveries={data.value.data} onSent={reload} addresses />;
}
