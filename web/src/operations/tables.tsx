// The tables of the operations view: queues, workers, dead letters, webhooks.

import { Pause, Play, RotateCcw, Trash2 } from "lucide";
import { call } from "../api.ts";
import { href } from "../router.ts";
import type { DeadLetter, Delivery, Queue, Stats, Webhook, Worker } from "../types.ts";
import { attempt, confirmed, Icon, IconButton, now, Time, toast } from "../ui/basics.tsx";
import { Spark } from "../ui/spark.tsx";
import { Table, type Column, type Row } from "../ui/table.tsx";
import { count, duration, number, title, waitReason } from "../words.ts";
import { hookState, type HookHealth, worstFirst } from "./hooks.ts";
import { description, latest, perMinute, type Series } from "./series.ts";

const ACTIONS: Column = ["Actions", "action"];
export function Queues({ queues, stats, onChange }: { queues: Queue[]; stats: Stats | null; onChange: () => void }) {
  const pauseQueue = (queue: Queue) => attempt(async () => {
    await call("PUT", `/admin/queues/${encodeURIComponent(queue.queue)}`, { json: { paused: queue.paused_at === null } });
    onChange();
  });
  if (queues.length === 0) return <p class="card hint">No queue has had a job yet.</p>;
  const seconds = stats?.interval_seconds ?? 10;
  const rate = (values: Series | null | undefined) => {
    const value = values ? latest(perMinute(values, seconds)) : null;
    return value === null ? null : number(value);
  };
  const row = (queue: Queue): Row => {
    const past = stats?.queues.find((one) => one.queue === queue.queue);
    const failed = rate(past?.failed);
    const paused = queue.paused_at !== null;
    return {
      key: queue.queue,
      cells: [
        queue.queue,
        number(queue.waiting),
        past && <Spark values={past.waiting} start={stats!.start} seconds={seconds} say={number} colour="--chart-queue" label={description(`Waiting in ${queue.queue}`, past.waiting, seconds)} />,
        queue.oldest_seconds === null ? null : duration(queue.oldest_seconds),
        rate(past?.submitted),
        rate(past?.ended),
        failed === null || failed === "0" ? failed : <span class="amiss">{failed}</span>,
        `${queue.running} of ${queue.slots}`,
        paused ? <strong>Paused <Time at={queue.paused_at} /></strong> : queue.waiting > 0 ? waitReason(queue.waiting_for) : null,
        <button type="button" class="small" onClick={() => pauseQueue(queue)}><Icon of={paused ? Play : Pause} size={14} />{paused ? "Resume" : "Pause"}<span class="unseen"> {queue.queue}</span></button>,
      ],
    };
  };
  const columns: Column[] = [["Queue"], ["Waiting", "right"], [stats ? `Last ${duration(stats.intervals * seconds)}` : "Past", "spark"], ["Oldest", "right"], ["In/min", "right"], ["Out/min", "right"], ["Failed/min", "right"], ["Running", "right"], ["Waits"], ACTIONS];
  return <Table label="Table of queues" columns={columns} rows={queues.map(row)} />;
}

/** The processes of a worker are drained together, so they are one row. */
function byName(workers: Worker[]): Worker[][] {
  const groups = new Map<string, Worker[]>();
  for (const worker of workers) groups.set(worker.name, [...(groups.get(worker.name) ?? []), worker]);
  return [...groups.values()];
}

export function Workers({ workers, onChange }: { workers: Worker[]; onChange: () => void }) {
  const drain = (worker: Worker) => attempt(async () => {
    await call("PUT", `/admin/workers/${encodeURIComponent(worker.name)}`, { json: { drained: worker.drained_at === null } });
    onChange();
  });
  if (workers.length === 0) return <p class="notice bad">No worker is alive: jobs wait until one starts.</p>;
  const row = (processes: Worker[]): Row => {
    const worker = processes.find(({ state }) => state !== "ready") ?? processes[0]!;
    const sum = (name: "running" | "slots") => processes.reduce((total, one) => total + one[name], 0);
    const state = worker.drained_at !== null ? <strong>Drained</strong> : <span class={worker.state === "failed" ? "amiss" : undefined}>{title(worker.state)}</span>;
    return {
      key: worker.name,
      cells: [
        <>{worker.name}{processes.length > 1 && <small class="hint"> {processes.length} processes</small>}</>,
        worker.pool,
        <>{state}{worker.model ? <span class="hint"> {worker.model}</span> : null}</>,
        `${sum("running")} of ${sum("slots")}`,
        duration(Date.now() / 1000 - Math.min(...processes.map(({ since }) => since))),
        <button type="button" class="small" onClick={() => drain(worker)}>{worker.drained_at === null ? "Drain" : "Resume"}<span class="unseen"> {worker.name}</span></button>,
      ],
    };
  };
  const columns: Column[] = [["Worker"], ["Pool"], ["State"], ["Running", "right"], ["Up for", "right"], ACTIONS];
  return <Table label="Table of workers" columns={columns} rows={byName(workers).map(row)} />;
}

export function DeadLetters({ jobs, onChange }: { jobs: DeadLetter[]; onChange: () => void }) {
  if (jobs.length === 0) return <p class="card hint">None: no job has lost all its workers.</p>;
  const replay = (some: DeadLetter[]) => attempt(async () => {
    for (const { id } of some) await call("POST", `/admin/dead-letters/${id}/replay`, { json: {} });
    toast(`${count(some.length, "job")} started again.`);
    onChange();
  });
  const drop = async (id: string) => {
    if (await confirmed("Remove this job from the dead letters? The job itself stays until its time is over.", "Remove")) await attempt(() => call("DELETE", `/admin/dead-letters/${id}`).then(onChange));
  };
  const row = (job: DeadLetter): Row => ({
    key: job.id,
    cells: [
      <a href={href("jobs", job.id)}>{job.summary || job.id}</a>,
      job.owner,
      <Time at={job.ended_at} />,
      <span class="row-actions"><button type="button" class="small" onClick={() => replay([job])}>Replay<span class="unseen"> {job.summary || job.id}</span></button><IconButton class="small" icon={Trash2} label={`Remove ${job.id}`} onClick={() => drop(job.id)} /></span>,
    ],
  });
  return (
    <>
      {jobs.length > 1 && <p><button type="button" onClick={() => replay(jobs)}><Icon of={RotateCcw} />Replay all {jobs.length}</button></p>}
      <Table label="Table of dead letters" columns={[["Job"], ["Owner"], ["Ended"], ACTIONS]} rows={jobs.map(row)} />
    </>
  );
}

export function Webhooks({ hooks, deliveries }: { hooks: Webhook[]; deliveries: Delivery[] }) {
  if (hooks.length === 0) return <p class="card hint">None. <a href={href("webhooks")}>Add a webhook</a> to be notified when jobs end.</p>;
  const row = (health: HookHealth): Row => {
    const { hook, all, good } = health;
    const state = hookState(health, now.value);
    return {
      key: hook.id,
      cells: [
        <a href={href("webhooks")}>{hook.description || hook.url}</a>,
        state.amiss ? <strong class="amiss">{state.words}</strong> : state.words,
        all === 0 ? <span class="hint">none</span> : <><span class="meter" data-level={good === all ? undefined : "warning"} aria-hidden="true"><span style={{ width: `${(good / all) * 100}%` }} /></span><span class={good === 0 ? "number amiss" : "number"}>{number(good)} of {number(all)} arrived</span></>,
      ],
    };
  };
  return <Table label="Table of webhooks" columns={[["Webhook"], ["State"], ["Recent deliveries", "share"]]} rows={worstFirst(hooks, deliveries).map(row)} />;
}
