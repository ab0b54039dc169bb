// The gpu workers: the model of each, its engine, and its GPUs.

import { useSignal } from "@preact/signals";
import { call } from "../api.ts";
import type { GpuWorker, Stats } from "../types.ts";
import { attempt, toast } from "../ui/basics.tsx";
import { Spark } from "../ui/spark.tsx";
import { bytes, count, duration, readable, title } from "../words.ts";
import { description } from "./series.ts";

const STATES: Record<string, string> = { ready: "completed", failed: "failed", unloaded: "queued", away: "expired" };

export function Gpus({ gpus, stats, onChange }: { gpus: GpuWorker[]; stats: Stats | null; onChange: () => void }) {
  if (gpus.length === 0) return <p class="card hint">No worker runs models. One of each GPU starts with <code>enginehouse up</code>.</p>;
  return (
    <div class="cards gpus">
      {gpus.map((gpu) => <GpuCard key={gpu.gpu} gpu={gpu} speeds={stats?.gpus.find((one) => one.gpu === gpu.gpu)?.tokens_per_second ?? null} start={stats?.start ?? 0} seconds={stats?.interval_seconds ?? 10} onChange={onChange} />)}
    </div>
  );
}

function Meter({ words, value, text, level, marks = false }: { words: string; value: number; text: string; level?: string | null; marks?: boolean }) {
  return (
    <div>
      <div><span>{words}</span><span class="number">{text}</span></div>
      <div class={marks ? "meter marked" : "meter"} data-level={level ?? undefined} role="img" aria-label={`${words}: ${text}${level ? `, ${level}` : ""}`}><span style={{ width: `${Math.min(100, value * 100)}%` }} /></div>
    </div>
  );
}

function GpuCard({ gpu, speeds, start, seconds, onChange }: { gpu: GpuWorker; speeds: (number | null)[] | null; start: number; seconds: number; onChange: () => void }) {
  const engine = gpu.engine as Record<string, number> | null;
  const speed = engine?.["tokens_per_second"];
  return (
    <article class="card gpu" aria-label={gpu.gpu}>
      <header><h3>{gpu.gpu}</h3><span class="state" data-state={STATES[gpu.state] ?? "in_progress"}>{title(gpu.state)}{gpu.progress !== null ? ` ${Math.round(gpu.progress * 100)}%` : ""}</span></header>
      <p class="gpu-model">{gpu.model ?? <span class="hint">No model</span>}{gpu.desired_model !== gpu.model && gpu.desired_model ? <span class="hint"> → {gpu.desired_model}</span> : null}</p>
      {gpu.reason && gpu.state !== "ready" && <p class={gpu.state === "failed" ? "notice bad" : "hint"}>{readable(gpu.reason)}</p>}
      {gpu.progress !== null && <progress aria-label={`Loading on ${gpu.gpu}`} value={gpu.progress} max={1} />}
      <div class="gpu-speed">
        <div><b class="number">{typeof speed === "number" ? Math.round(speed) : "–"}</b> <span class="hint">tokens/s</span></div>
        {speeds && <Spark values={speeds} start={start} seconds={seconds} say={rounded} label={description(`Tokens a second of ${gpu.gpu}`, speeds, seconds, rounded)} />}
      </div>
      <div class="meters">
        {engine && typeof engine["in_flight"] === "number" && <Meter words="Batch" value={(engine["running"] ?? 0) / Math.max(1, engine["in_flight"])} text={`${engine["running"] ?? 0} of ${engine["in_flight"]}`} />}
        {engine && typeof engine["cache_use"] === "number" && <Meter words="KV cache" value={engine["cache_use"]} text={`${Math.round(engine["cache_use"] * 100)}%`} />}
        {gpu.gpus.map((one) => <Meter key={one.uuid} marks words={gpu.gpus.length > 1 ? `Memory of GPU ${one.index}` : "Memory"} value={one.memory_used / one.memory_total} level={one.memory_alarm} text={`${bytes(one.memory_used)} of ${bytes(one.memory_total)}`} />)}
      </div>
      {gpu.gpus.map((one) => <p key={one.uuid} class="hint">{health(one)}</p>)}
      <p class="hint">{gpu.running > 0 || gpu.idle_seconds === null ? `${count(gpu.running, "job")} running` : `Idle for ${duration(gpu.idle_seconds)}`}</p>
      <ModelChoice gpu={gpu} onChange={onChange} />
    </article>
  );
}

const rounded = (value: number) => String(Math.round(value));

function health({ name, temperature, power, utilisation, ecc_errors, xid_errors }: GpuWorker["gpus"][number]): string {
  return [
    name,
    utilisation === null ? null : `${Math.round(utilisation * 100)}% busy`,
    temperature === null ? null : `${temperature} °C`,
    power === null ? null : `${Math.round(power)} W`,
    ecc_errors ? count(ecc_errors, "memory error") : null,
    xid_errors.length > 0 ? `Xid ${xid_errors.join(", ")}` : null,
  ].filter((part) => part !== null).map((part, place) => (place === 0 ? part : part.replaceAll(" ", "\u00a0"))).join(" · ");
}

function ModelChoice({ gpu, onChange }: { gpu: GpuWorker; onChange: () => void }) {
  const chosen = useSignal(gpu.desired_model ?? "");
  const set = (model: string | null) => attempt(async () => {
    await call("PUT", `/admin/gpus/${encodeURIComponent(gpu.gpu)}/model`, { json: { model } });
    toast(model === null ? `${gpu.gpu} unloads its model.` : `${gpu.gpu} loads ${model}.`);
    onChange();
  });
  const offered = [...new Set([...gpu.loadable_models, ...(gpu.model ? [gpu.model] : [])])];
  return (
    <div class="bar">
      <select aria-label={`Model of ${gpu.gpu}`} value={chosen.value} onChange={(event) => (chosen.value = event.currentTarget.value)}>
        <option value="">No model</option>
        {offered.map((model) => <option key={model} value={model}>{model}</option>)}
        {Object.entries(gpu.unloadable_models).map(([model, reason]) => <option key={model} value={model} disabled title={reason}>{model} (does not fit)</option>)}
      </select>
      <button type="button" disabled={!chosen.value || chosen.value === gpu.model} onClick={() => set(chosen.value)}>Load</button>
      <button type="button" disabled={gpu.model === null} onClick={() => set(null)}>Unload</button>
    </div>
  );
}
