// Operations, for administrators: what waits, what runs, what has failed, and the models on the GPUs.

import { signal, useSignal } from "@preact/signals";
import { Pause, Play, RotateCcw, Trash2 } from "lucide";
import { ApiError, call } from "../api.ts";
import { useResource } from "../resource.ts";
import { href } from "../router.ts";
import { attention, lookForAttention } from "../store.ts";
import type { DeadLetter, GpuWorker, List, Queue } from "../types.ts";
import { attempt, confirmed, Icon, IconButton, Problem, Time, toast } from "../ui/basics.tsx";
import { Spark } from "../ui/spark.tsx";
import { bytes, count, duration, number, problem, readable, title, waitReason } from "../words.ts";

const LOOK_SECONDS = 3;
const HISTORY = 120;

interface Worker {
  name: string;
  pool: string;
  state: string;
  reason: string | null;
  model: string | null;
  slots: number;
  running: number;
  idle_seconds: number;
  since: number;
  version: string | null;
  drained_at: number | null;
  id: string;
}

interface Facts {
  queues: Queue[];
  workers: Worker[];
  gpus: GpuWorker[];
  dead: DeadLetter[];
}

interface Sample {
  waiting: number;
  running: number;
  oldest: number;
  tokens: number | null;
}
/** What this page has seen since it was opened. */
const samples = signal<Sample[]>([]);

async function load(abort: AbortSignal): Promise<Facts> {
  const get = async <T,>(path: string) => (await call<List<T>>("GET", path, { signal: abort })).data;
  const [queues, workers, gpus, dead] = await Promise.all([get<Queue>("/admin/queues"), get<Worker>("/admin/workers"), get<GpuWorker>("/admin/gpus"), get<DeadLetter>("/admin/dead-letters?limit=100")]);
  const speeds = gpus.map(({ engine }) => engine?.["tokens_per_second"]).filter((speed): speed is number => typeof speed === "number");
  samples.value = [...samples.value.slice(1 - HISTORY), {
    waiting: queues.reduce((sum, { waiting }) => sum + waiting, 0),
    running: workers.reduce((sum, { running }) => sum + running, 0),
    oldest: Math.max(0, ...queues.map(({ oldest_seconds }) => oldest_seconds ?? 0)),
    tokens: speeds.length > 0 ? speeds.reduce((sum, speed) => sum + speed, 0) : null,
  }];
  return { queues, workers, gpus, dead };
}

export function OperationsView() {
  const { data, error, reload } = useResource("operations", load, LOOK_SECONDS);
  const facts = data.value;
  const forbidden = error.value instanceof ApiError && error.value.status === 403;
  return (
    <section class="view" aria-label="Operations">
      <div class="view-head"><h1>Operations</h1></div>
      {forbidden ? <p class="notice">{problem(error.value!)}</p> : <Problem error={error.value} />}
      {facts && (
        <>
          {attention.value.length > 0 && <div class="notice bad" role="status"><strong>Needs attention</strong><ul>{attention.value.map(({ text, href: where }) => <li key={text}>{where === "/ui/operations" ? text : <a href={where}>{text}</a>}</li>)}</ul></div>}
          <Tiles />
          <section class="section" aria-labelledby="gpus-heading"><h2 id="gpus-heading">Models</h2>
            <div class="cards">{facts.gpus.map((gpu) => <GpuCard key={gpu.gpu} gpu={gpu} onChange={reload} />)}</div>
            {facts.gpus.length === 0 && <p class="hint">No worker runs models.</p>}
          </section>
          <section class="section" aria-labelledby="queues-heading"><h2 id="queues-heading">Queues</h2><Queues queues={facts.queues} onChange={reload} /></section>
          <section class="section" aria-labelledby="dead-heading"><h2 id="dead-heading">Dead letters</h2><DeadLetters jobs={facts.dead} onChange={() => { reload(); void lookForAttention(); }} /></section>
          <section class="section" aria-labelledby="workers-heading"><h2 id="workers-heading">Workers</h2><Workers workers={facts.workers} onChange={reload} /></section>
        </>
      )}
      {facts === null && error.value === null && <p class="hint" role="status">Loading…</p>}
    </section>
  );
}

function Tiles() {
  const list = samples.value;
  const last = list.at(-1)!;
  const tile = (words: string, value: string, numbers: (number | null)[], colour: string) => (
    <div class="card tile"><span class="hint">{words}</span><b>{value}</b><Spark values={numbers} colour={colour} label={`${words} since this page was opened, now ${value}`} /></div>
  );
  return (
    <div class="tiles">
      {tile("Queued", number(last.waiting), list.map(({ waiting }) => waiting), "--chart-queue")}
      {tile("Running", number(last.running), list.map(({ running }) => running), "--chart-write")}
      {tile("Longest wait", last.oldest > 0 ? duration(last.oldest) : "none", list.map(({ oldest }) => oldest), "--chart-prefill")}
      {tile("Tokens a second", last.tokens === null ? "–" : number(Math.round(last.tokens)), list.map(({ tokens }) => tokens), "--chart-write")}
    </div>
  );
}

function Meter({ words, value, text, level }: { words: string; value: number; text: string; level?: string | null }) {
  return <div><div><span>{words}</span><span class="number">{text}</span></div><div class="meter" data-level={level ?? undefined} role="img" aria-label={`${words}: ${text}`}><span style={{ width: `${Math.min(100, value * 100)}%` }} /></div></div>;
}

function GpuCard({ gpu, onChange }: { gpu: GpuWorker; onChange: () => void }) {
  const chosen = useSignal(gpu.desired_model ?? "");
  const engine = gpu.engine as Record<string, number> | null;
  const set = (model: string | null) => attempt(async () => {
    await call("PUT", `/admin/gpus/${encodeURIComponent(gpu.gpu)}/model`, { json: { model } });
    toast(model === null ? `${gpu.gpu} unloads its model.` : `${gpu.gpu} loads ${model}.`);
    onChange();
  });
  const offered = [...new Set([...gpu.loadable_models, ...(gpu.model ? [gpu.model] : [])])];
  return (
    <article class="card" aria-label={gpu.gpu}>
      <header><h3>{gpu.gpu}</h3><span class="state" data-state={gpu.state === "ready" ? "completed" : gpu.state === "failed" ? "failed" : gpu.state === "unloaded" ? "queued" : "in_progress"}>{title(gpu.state)}{gpu.progress !== null ? ` ${Math.round(gpu.progress * 100)}%` : ""}</span></header>
      <p>{gpu.model ?? <span class="hint">No model</span>}{gpu.desired_model !== gpu.model && gpu.desired_model ? <span class="hint"> → {gpu.desired_model}</span> : null}</p>
      {gpu.reason && gpu.state !== "ready" && <p class={gpu.state === "failed" ? "notice bad" : "hint"}>{readable(gpu.reason)}</p>}
      {gpu.progress !== null && <progress aria-label={`Loading on ${gpu.gpu}`} value={gpu.progress} max={1} />}
      <div class="meters">
        {engine && typeof engine["in_flight"] === "number" && <Meter words="Batch" value={(engine["running"] ?? 0) / Math.max(1, engine["in_flight"])} text={`${engine["running"] ?? 0} of ${engine["in_flight"]}`} />}
        {engine && typeof engine["cache_use"] === "number" && <Meter words="KV cache" value={engine["cache_use"]} text={`${Math.round(engine["cache_use"] * 100)}%`} />}
        {gpu.gpus.map((one) => <Meter key={one.uuid} words={`${one.name} memory`} value={one.memory_used / one.memory_total} level={one.memory_alarm} text={`${bytes(one.memory_used)} of ${bytes(one.memory_total)}${one.temperature !== null ? `, ${one.temperature} °C` : ""}${one.power !== null ? `, ${Math.round(one.power)} W` : ""}`} />)}
      </div>
      <div class="bar">
        <select aria-label={`Model of ${gpu.gpu}`} value={chosen.value} onChange={(event) => (chosen.value = event.currentTarget.value)}>
          <option value="">No model</option>
          {offered.map((model) => <option key={model} value={model}>{model}</option>)}
          {Object.entries(gpu.unloadable_models).map(([model, reason]) => <option key={model} value={model} disabled title={reason}>{model} (does not fit)</option>)}
        </select>
        <button type="button" disabled={!chosen.value || chosen.value === gpu.model} onClick={() => set(chosen.value)}>Load</button>
        <button type="button" disabled={gpu.model === null} onClick={() => set(null)}>Unload</button>
      </div>
      <p class="hint">{count(gpu.running, "job")} running{gpu.idle_seconds !== null && gpu.running === 0 ? `, idle for ${duration(gpu.idle_seconds)}` : ""}</p>
    </article>
  );
}

function Queues({ queues, onChange }: { queues: Queue[]; onChange: () => void }) {
  const pauseQueue = (queue: Queue) => attempt(async () => {
    await call("PUT", `/admin/queues/${encodeURIComponent(queue.queue)}`, { json: { paused: queue.paused_at === null } });
    onChange();
  });
  if (queues.length === 0) return <p class="hint">No queue has had a job yet.</p>;
  return (
    <div class="table-card" tabIndex={0} role="group" aria-label="Table of queues">
      <table class="plain-table">
        <thead><tr><th scope="col">Queue</th><th scope="col" class="right">Waiting</th><th scope="col" class="right">Oldest</th><th scope="col" class="right">Running</th><th scope="col">Waits</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
        <tbody>{queues.map((queue) => (
          <tr key={queue.queue}><th scope="row">{queue.queue}</th><td class="right">{number(queue.waiting)}</td><td class="right">{queue.oldest_seconds === null ? "" : duration(queue.oldest_seconds)}</td><td class="right">{queue.running} of {queue.slots}</td>
            <td>{queue.paused_at !== null ? <strong>Paused <Time at={queue.paused_at} /></strong> : queue.waiting > 0 ? waitReason(queue.waiting_for) : ""}</td>
            <td class="right"><button type="button" class="small" onClick={() => pauseQueue(queue)}><Icon of={queue.paused_at === null ? Pause : Play} size={14} />{queue.paused_at === null ? "Pause" : "Resume"}<span class="unseen"> {queue.queue}</span></button></td></tr>
        ))}</tbody>
      </table>
    </div>
  );
}

function DeadLetters({ jobs, onChange }: { jobs: DeadLetter[]; onChange: () => void }) {
  if (jobs.length === 0) return <p class="hint">None: no job has lost all its workers.</p>;
  const replay = (some: DeadLetter[]) => attempt(async () => {
    for (const { id } of some) await call("POST", `/admin/dead-letters/${id}/replay`, { json: {} });
    toast(`${count(some.length, "job")} started again.`);
    onChange();
  });
  const drop = async (id: string) => {
    if (await confirmed("Remove this job from the dead letters? The job itself stays until its time is over.", "Remove")) await attempt(() => call("DELETE", `/admin/dead-letters/${id}`).then(onChange));
  };
  return (
    <>
      {jobs.length > 1 && <p><button type="button" onClick={() => replay(jobs)}><Icon of={RotateCcw} />Replay all {jobs.length}</button></p>}
      <div class="table-card" tabIndex={0} role="group" aria-label="Table of dead letters">
        <table class="plain-table">
          <thead><tr><th scope="col">Job</th><th scope="col">Owner</th><th scope="col">Ended</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
          <tbody>{jobs.map((job) => (
            <tr key={job.id}><th scope="row"><a href={href("jobs", job.id)}>{job.summary || job.id}</a></th><td>{job.owner}</td><td><Time at={job.ended_at} /></td>
              <td class="right"><button type="button" class="small" onClick={() => replay([job])}>Replay</button> <IconButton icon={Trash2} label={`Remove ${job.id}`} onClick={() => drop(job.id)} /></td></tr>
          ))}</tbody>
        </table>
      </div>
    </>
  );
}

function Workers({ workers, onChange }: { workers: Worker[]; onChange: () => void }) {
  const drain = (worker: Worker) => attempt(async () => {
    await call("PUT", `/admin/workers/${encodeURIComponent(worker.name)}`, { json: { drained: worker.drained_at === null } });
    onChange();
  });
  return (
    <div class="table-card" tabIndex={0} role="group" aria-label="Table of workers">
      <table class="plain-table">
        <thead><tr><th scope="col">Worker</th><th scope="col">Pool</th><th scope="col">State</th><th scope="col" class="right">Running</th><th scope="col" class="right">Up for</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
        <tbody>{workers.map((worker) => (
          <tr key={worker.id}><th scope="row" title={worker.id}>{worker.name}</th><td>{worker.pool}</td><td>{worker.drained_at !== null ? <strong>Drained</strong> : title(worker.state)}{worker.model ? <span class="hint"> {worker.model}</span> : null}</td><td class="right">{worker.running} of {worker.slots}</td><td class="right">{duration(Date.now() / 1000 - worker.since)}</td>
            <td class="right"><button type="button" class="small" onClick={() => drain(worker)}>{worker.drained_at === null ? "Drain" : "Resume"}<span class="unseen"> {worker.name}</span></button></td></tr>
        ))}</tbody>
      </table>
    </div>
  );
}
