// Series of the statistics: values of consecutive intervals, null where nothing was recorded.

import { duration, number } from "../words.ts";

export type Series = (number | null)[];

/** The newest value; the interval that has just begun may not have one yet. */
export function latest(values: Series): number | null {
  return values.at(-1) ?? values.at(-2) ?? null;
}

/** For each interval, the sum of those of the minute up to it; for a longer interval, its mean. */
export function perMinute(values: Series, seconds: number): Series {
  if (seconds > 60) return values.map((value) => value === null ? null : Math.round((value * 600) / seconds) / 10);
  const length = Math.round(60 / seconds);
  return values.map((value, place) => value === null ? null : values.slice(Math.max(0, place + 1 - length), place + 1).reduce<number>((sum, one) => sum + (one ?? 0), 0));
}

/** What a chart shows, for those who do not see it. */
export function description(words: string, values: Series, seconds: number, say: (value: number) => string = number): string {
  const known = values.filter((value) => value !== null);
  const span = duration(values.length * seconds);
  if (known.length === 0) return `${words}, last ${span}: nothing was recorded`;
  const missing = values.length - known.length;
  const gap = missing > 0 ? `; nothing was recorded for ${duration(missing * seconds)}` : "";
  return `${words}, last ${span}: lowest ${say(Math.min(...known))}, highest ${say(Math.max(...known))}, last ${say(known.at(-1)!)}${gap}`;
}
