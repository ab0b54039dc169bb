// The filter of the job list: in the address, and as the API has it.

export const FILTERS = ["status", "kind", "model", "collection", "batch", "q", "within", "since", "until"] as const;
export const METADATA = "metadata.";
const MOST_METADATA = 4;

/** Texts by name, as in the address: those of `FILTERS`, and `metadata.NAME`. */
export type Filter = Partial<Record<(typeof FILTERS)[number] | `metadata.${string}`, string>>;

/** Periods up to now, by their names in the address. */
export const PERIODS: Record<string, { words: string; seconds: number }> = {
  "15m": { words: "Last 15 minutes", seconds: 900 },
  "1h": { words: "Last hour", seconds: 3600 },
  "1d": { words: "Last day", seconds: 86_400 },
  "7d": { words: "Last 7 days", seconds: 604_800 },
};
/** The start of a period moves in steps, so that a list that is read again is still the same one. */
const STEP_SECONDS = 10;

export function readFilter(query: URLSearchParams): Filter {
  const filter: Filter = {};
  for (const [name, value] of query) {
    if (value && ((FILTERS as readonly string[]).includes(name) || name.startsWith(METADATA))) filter[name as keyof Filter] = value;
  }
  return filter;
}

/** The filter with times in Unix seconds, as the API has it. A time that cannot be read is left out. */
export function resolveTimes({ within, since, until, ...rest }: Filter, now = Date.now() / 1000): Filter {
  const period = within === undefined ? undefined : PERIODS[within];
  const begin = period ? Math.floor((now - period.seconds) / STEP_SECONDS) * STEP_SECONDS : unixSeconds(since);
  const end = period ? null : unixSeconds(until);
  return { ...rest, ...(begin === null ? {} : { since: String(begin) }), ...(end === null ? {} : { until: String(end) }) };
}

/** A local time such as 2026-01-31T12:00 in Unix seconds, or null. */
function unixSeconds(text: string | undefined): number | null {
  const time = text ? new Date(text).getTime() / 1000 : NaN;
  return Number.isFinite(time) && time >= 0 ? time : null;
}

/** The filter as the body of `POST /jobs/actions` has it. */
export function asSelection(filter: Filter, now?: number): Record<string, unknown> {
  const selection: Record<string, unknown> = {};
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(resolveTimes(filter, now))) {
    if (value === undefined) continue;
    if (name.startsWith(METADATA)) metadata[name.slice(METADATA.length)] = value;
    else selection[name] = name === "since" || name === "until" ? Number(value) : value;
  }
  return Object.keys(metadata).length > 0 ? { ...selection, metadata } : selection;
}

/** The metadata of a filter as a line: `team=search, run=3`. */
export function metadataLine(filter: Filter): string {
  return Object.entries(filter).filter(([name]) => name.startsWith(METADATA)).map(([name, value]) => `${name.slice(METADATA.length)}=${value}`).join(", ");
}

/** The names and values of such a line, or in words what is wrong with it. */
export function parseMetadata(line: string): Record<string, string> | string {
  const found: Record<string, string> = {};
  for (const part of line.split(",").map((text) => text.trim()).filter(Boolean)) {
    const [, name, value] = /^([^=]+?)\s*=\s*(.+)$/.exec(part) ?? [];
    if (name === undefined || value === undefined) return `“${part}” is not name=value.`;
    found[name] = value;
  }
  if (Object.keys(found).length > MOST_METADATA) return `At most ${MOST_METADATA} names.`;
  return found;
}
