// Operations, for administrators: what waits, what runs, what has failed, and the models on the GPUs.

import { ExternalLink, KeyRound } from "lucide";
import { ApiError, call } from "../api.ts";
import { useResource } from "../resource.ts";
import { query, segments, setQuery } from "../router.ts";
import "../start.tsx";
import { attention, lookForAttention, placeOf } from "../store.ts";
import type { Delivery, List, Overview, Stats, Webhook } from "../types.ts";
import { Icon, Problem } from "../ui/basics.tsx";
import { Spark } from "../ui/spark.tsx";
import { duration, number, problem } from "../words.ts";
import { Gpus } from "./gpus.tsx";
import { KeysView } from "./keys.tsx";
import { description, latest, perMinute, type Series } from "./series.ts";
import { DeadLetters, Queues, Webhooks, Workers } from "./tables.tsx";

const LOOK_SECONDS = 4;
const STATS_SECONDS = 10;
const DAY_SECONDS = 60;
const HOOKS_SECONDS = 30;

interface Hooks {
  hooks: Webhook[];
  deliveries: Delivery[];
}

const list = async <T,>(path: string, signal: AbortSignal) => (await call<List<T>>("GET", path, { signal })).data;

async function loadHooks(signal: AbortSignal): Promise<Hooks> {
  const hooks = await list<Webhook>("/webhooks", signal);
  return { hooks, deliveries: hooks.length > 0 ? await list<Delivery>("/deliveries?limit=100", signal) : [] };
}

export function OperationsView() {
  return segments.value[1] === "keys" ? <KeysView /> : <OverviewSection />;
}

function OverviewSection() {
  const { data, error, reload } = useResource("operations", (signal) => call<Overview>("GET", "/admin/overview", { signal }), LOOK_SECONDS);
  const minutes = RANGES.find(([value]) => String(value) === query.value.get("minutes"))?.[0] ?? HOUR;
  const stats = useResource(`stats ${minutes}`, (signal) => call<Stats>("GET", `/stats?minutes=${minutes}`, { signal }), minutes > HOUR ? DAY_SECONDS : STATS_SECONDS);
  const hooks = useResource("hooks", loadHooks, HOOKS_SECONDS);
  const facts = data.value;
  const past = stats.data.value;
  const forbidden = error.value instanceof ApiError && error.value.status === 403;
  const letters = () => {
    reload();
    void lookForAttention();
  };
  return (
    <section class="view operations" aria-label="Operations">
      <div class="view-head"><h1>Operations</h1><RangeChoice minutes={minutes} /><a class="button quiet" href="/ui/operations/keys"><Icon of={KeyRound} size={14} />API keys</a><Links links={past?.links ?? null} /></div>
      {forbidden ? <p class="notice">{problem(error.value!)}</p> : <Problem error={error.value} />}
      {facts && (
        <>
          {attention.value.length > 0 && <div class="notice attention" role="status"><strong>Needs attention</strong><ul>{attention.value.map((one) => <li key={one.message}>{placeOf(one) === "/ui/operations" ? one.message : <a href={placeOf(one)}>{one.message}</a>}</li>)}</ul></div>}
          <Tiles facts={facts} stats={past} />
          <section class="section" aria-labelledby="gpus-heading"><h2 id="gpus-heading">Models</h2><Gpus gpus={facts.gpus} stats={past} onChange={reload} /></section>
          <section class="section" aria-labelledby="queues-heading"><h2 id="queues-heading">Queues</h2><Queues queues={facts.queues} stats={past} onChange={reload} /></section>
          <div class="pair">
            <section class="section" aria-labelledby="workers-heading"><h2 id="workers-heading">Workers</h2><Workers workers={facts.workers} onChange={reload} /></section>
            <div>
              <section class="section" aria-labelledby="dead-heading"><h2 id="dead-heading">Dead letters</h2><DeadLetters jobs={facts.dead_letters} onChange={letters} /></section>
              <section class="section" aria-labelledby="hooks-heading"><h2 id="hooks-heading">Webhooks</h2>{hooks.data.value ? <Webhooks {...hooks.data.value} /> : <p class="card hint">Loading…</p>}</section>
            </div>
          </div>
        </>
      )}
      {facts === null && error.value === null && <p class="hint" role="status">Loading…</p>}
    </section>
  );
}

const HOUR = 60;
const RANGES: [minutes: number, words: string][] = [[15, "15 min"], [HOUR, "1 hour"], [24 * HOUR, "1 day"]];

function RangeChoice({ minutes }: { minutes: number }) {
  return (
    <div class="segments" role="group" aria-label="Time range of the charts">
      {RANGES.map(([value, words]) => <button key={value} type="button" class="small" aria-pressed={value === minutes} onClick={() => setQuery({ minutes: value === HOUR ? null : String(value) })}>{words}</button>)}
    </div>
  );
}

function Links({ links }: { links: Stats["links"] }) {
  return (
    <>
      {([["Flower", links?.flower], ["Grafana", links?.grafana]] as const).map(([name, address]) => (
        address ? <a key={name} class="button quiet" href={address} target="_blank" rel="noopener noreferrer">{name}<Icon of={ExternalLink} size={14} /></a> : null
      ))}
    </>
  );
}

interface TileFacts {
  words: string;
  /** The present value, which is newer than the last one of the series. */
  value: number | null;
  series: Series | undefined;
  colour: string;
  say?: (value: number) => string;
}

function Tiles({ facts, stats }: { facts: Overview; stats: Stats | null }) {
  const totals = stats?.totals;
  const seconds = stats?.interval_seconds ?? STATS_SECONDS;
  const speeds = facts.gpus.map(({ engine }) => engine?.["tokens_per_second"]).filter((speed): speed is number => typeof speed === "number");
  const failed = totals ? perMinute(totals.failed, seconds) : undefined;
  const total = (values: number[]) => values.reduce((sum, value) => sum + value, 0);
  const tiles: TileFacts[] = [
    { words: "Queued", value: total(facts.queues.map(({ waiting }) => waiting)), series: totals?.queued, colour: "--chart-queue" },
    { words: "Running", value: total(facts.workers.map(({ running }) => running)), series: totals?.running, colour: "--chart-write" },
    { words: "Tokens/s", value: speeds.length > 0 ? total(speeds) : null, series: totals?.tokens_per_second, colour: "--chart-write", say: (value) => number(Math.round(value)) },
    { words: "Failed/min", value: failed ? latest(failed) : null, series: failed, colour: "--red" },
    { words: "Oldest wait", value: Math.max(0, ...facts.queues.map(({ oldest_seconds }) => oldest_seconds ?? 0)), series: totals?.oldest_seconds, colour: "--chart-prefill", say: (value) => (value > 0 ? duration(value) : "none") },
  ];
  return <div class="tiles">{tiles.map((tile) => <Tile key={tile.words} {...tile} start={stats?.start ?? 0} seconds={seconds} />)}</div>;
}

function Tile({ words, value, series, colour, say = number, start, seconds }: TileFacts & { start: number; seconds: number }) {
  const known = (series ?? []).filter((one) => one !== null);
  return (
    <div class="card tile">
      <div class="tile-head"><span class="hint">{words}</span>{known.length > 1 && <span class="hint">max {say(Math.max(...known))}</span>}</div>
      <b>{value === null ? "–" : say(value)}</b>
      {series && (known.length > 0 ? <Spark values={series} start={start} seconds={seconds} say={say} colour={colour} label={description(words, series, seconds, say)} /> : <p class="spark hint">No figures yet</p>)}
      {!series && <div class="spark" />}
    </div>
  );
}
