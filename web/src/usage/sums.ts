// Sums of usage.

import type { UsageReport } from "../types.ts";

export type Entry = UsageReport["data"][number];

/** The entries added up by one of the fields that they are grouped by. */
export function sumBy(entries: Entry[], field: "model" | "owner"): Entry[] {
  const sums = new Map<string, Entry>();
  for (const entry of entries) {
    const key = entry[field] ?? "";
    const sum = sums.get(key);
    if (!sum) {
      sums.set(key, { ...entry });
      continue;
    }
    for (const [name, value] of Object.entries(entry)) if (typeof value === "number") (sum as unknown as Record<string, number>)[name]! += value;
  }
  return [...sums.values()];
}
