// Usage: what the owner, or for administrators every owner, has used, and how much of its limits.

import { Download } from "lucide";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { call } from "../api.ts";
import { download } from "../documents/download.ts";
import { useResource } from "../resource.ts";
import { query, setQuery } from "../router.ts";
import "../start.tsx";
import { loadMe, me } from "../store.ts";
import type { Account, ApiKey, List, UsageReport } from "../types.ts";
import { attempt, Empty, Icon, Problem, Time } from "../ui/basics.tsx";
import { Table, type Row } from "../ui/table.tsx";
import { bytes, duration, number } from "../words.ts";
import { dayBefore, isShort, limitName, limitText, shownLimits } from "./limits.ts";
import { sumBy, type Entry } from "./sums.ts";

const LOOK_SECONDS = 15;
const RANGES = [7, 30, 90];

export function UsageView() {
  const days = RANGES.find((value) => String(value) === query.value.get("days")) ?? 30;
  const everyone = me.value?.admin === true && query.value.get("owner") !== "me";
  const since = dayBefore(days - 1);
  const own = me.value === null || everyone ? "" : `&owner=${encodeURIComponent(me.value.owner)}`;
  const path = (group: string) => `/usage?group_by=${group}&since=${since}${own}`;
  const ready = me.value !== null;
  const report = (group: string) =>
    useResource(ready ? path(group) : null, (signal) => call<UsageReport>("GET", path(group), { signal }), LOOK_SECONDS);
  useEffect(() => {
    // The account is known already, with the use of the limits at that time.
    const timer = setInterval(() => document.hidden || void loadMe(), LOOK_SECONDS * 1000);
    return () => clearInterval(timer);
  }, []);
  const byDay = report("day");
  const parts = report("model,owner");
  const byModel = sumBy(parts.data.value?.data ?? [], "model");
  const byOwner = everyone ? sumBy(parts.data.value?.data ?? [], "owner") : [];
  const keys = useResource(everyone ? "usage keys" : null, async (signal) => (await call<List<ApiKey>>("GET", "/admin/keys", { signal })).data, LOOK_SECONDS);
  // All at once, so that nothing moves when more arrives.
  const total = parts.data.value === null ? undefined : byDay.data.value?.total;
  return (
    <section class="view usage" aria-label="Usage">
      <div class="view-head"><h1>Usage</h1>
        <div class="segments" role="group" aria-label="Days">{RANGES.map((value) => <button key={value} type="button" class="small" aria-pressed={value === days} onClick={() => setQuery({ days: value === 30 ? null : String(value) })}>{value} days</button>)}</div>
        {me.value?.admin && <div class="segments" role="group" aria-label="Owners">
          <button type="button" class="small" aria-pressed={everyone} onClick={() => setQuery({ owner: null })}>All owners</button>
          <button type="button" class="small" aria-pressed={!everyone} onClick={() => setQuery({ owner: "me" })}>Mine</button></div>}
        <button type="button" class="quiet" disabled={!ready} onClick={() => void attempt(() => download(`${path("day,model,owner")}&format=csv`, `usage-${since}.csv`))}><Icon of={Download} size={14} />CSV</button>
      </div>
      <Problem error={byDay.error.value} />
      {total && <div class="tiles">
        <Tile words="Jobs">{number(total.jobs)}</Tile>
        <Tile words="Tokens read" more={total.cached_tokens > 0 ? `${number(total.cached_tokens)} cached` : ""}>{number(total.prompt_tokens)}</Tile>
        <Tile words="Tokens written">{number(total.completion_tokens)}</Tile>
        <Tile words="GPU time">{duration(total.gpu_seconds)}</Tile>
        <Tile words="Pages read" more={bytes(total.bytes)}>{number(total.pages)}</Tile>
      </div>}
      {total && me.value && <Section id="limits" heading={`Limits of ${me.value.owner}`}><Limits account={me.value} /></Section>}
      {total?.jobs === 0 && <Empty><h2>Nothing was used in these days</h2><p>Jobs are counted on the day on which they end (UTC).</p></Empty>}
      {total && byOwner.length > 0 && <Section id="owners" heading="By owner"><Report label="Table of owners" first="Owner" entries={byOwner} name={({ owner }) => owner ?? ""} largestFirst /></Section>}
      {total && byModel.length > 0 && <Section id="models" heading="By model"><Report label="Table of models" first="Model" entries={byModel} name={({ model }) => model || "without a model"} largestFirst /></Section>}
      {byDay.data.value && total && total.jobs > 0 && <Section id="days" heading="By day"><Report label="Table of days" first="Day" entries={byDay.data.value.data.toReversed()} name={({ day }) => day ?? ""} /></Section>}
      {total && keys.data.value && keys.data.value.length > 0 && <Section id="keys" heading="API keys" ><Keys keys={keys.data.value} /></Section>}
      {total === undefined && byDay.error.value === null && <p class="hint" role="status">Loading…</p>}
    </section>
  );
}

function Section({ id, heading, children }: { id: string; heading: string; children: ComponentChildren }) {
  return <section class="section" aria-labelledby={`usage-${id}`}><h2 id={`usage-${id}`}>{heading}</h2>{children}</section>;
}

function Tile({ words, more = "", children }: { words: string; more?: string; children: ComponentChildren }) {
  return <div class="card tile"><div class="tile-head"><span class="hint">{words}</span><span class="hint">{more}</span></div><b>{children}</b></div>;
}

function Limits({ account }: { account: Account }) {
  const shown = shownLimits(account);
  if (shown.length === 0) return <p class="card hint">Nothing is limited.</p>;
  return (
    <div class="card meters limits">
      {shown.map(({ name, limit, used }) => (
        <div key={name}>
          <div><span>{limitName(name)}</span><span class="number">{used === null ? limitText(name, limit) : limit === 0 ? limitText(name, used) : `${limitText(name, used)} of ${limitText(name, limit)}`}</span></div>
          {used !== null && limit > 0 && <div class="meter" data-level={used >= limit ? "critical" : isShort(used, limit) ? "warning" : undefined} role="img" aria-label={`${limitName(name)}: ${limitText(name, used)} of ${limitText(name, limit)}`}><span style={{ width: `${Math.min(100, (used / limit) * 100)}%` }} /></div>}
        </div>
      ))}
    </div>
  );
}

const tokens = ({ prompt_tokens, completion_tokens, embedding_tokens }: Entry) => prompt_tokens + completion_tokens + embedding_tokens;

function Report({ label, first, entries, name, largestFirst = false }: { label: string; first: string; entries: Entry[]; name: (entry: Entry) => string; largestFirst?: boolean }) {
  const list = largestFirst ? entries.toSorted((one, other) => tokens(other) - tokens(one) || other.jobs - one.jobs) : entries;
  const most = Math.max(1, ...list.map(tokens));
  const row = (entry: Entry): Row => ({
    key: name(entry),
    cells: [
      name(entry),
      <><span class="meter" aria-hidden="true"><span style={{ width: `${(tokens(entry) / most) * 100}%` }} /></span><span class="number">{number(tokens(entry))}</span></>,
      number(entry.jobs), number(entry.prompt_tokens), number(entry.completion_tokens), number(entry.embedding_tokens), duration(entry.gpu_seconds), number(entry.pages),
    ],
  });
  return <Table label={label} columns={[[first], ["Tokens", "share"], ["Jobs", "right"], ["Read", "right"], ["Written", "right"], ["Embedded", "right"], ["GPU time", "right"], ["Pages", "right"]]} rows={list.map(row)} />;
}

function Keys({ keys }: { keys: ApiKey[] }) {
  const list = keys.filter(({ revoked_at }) => revoked_at === null).toSorted((one, other) => (other.last_used_at ?? 0) - (one.last_used_at ?? 0));
  const row = (key: ApiKey): Row => ({
    key: key.id,
    cells: [<a href="/ui/operations/keys">{key.name}</a>, key.owner, key.last_used_at === null ? <span class="hint">never</span> : <Time at={key.last_used_at} />, key.requests_per_second === null ? <span class="hint">none</span> : `${number(key.requests_per_second)} a second`],
  });
  return <Table label="Table of API keys" columns={[["Key"], ["Owner"], ["Last used"], ["Own limit", "right"]]} rows={list.map(row)} />;
}
