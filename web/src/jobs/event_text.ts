// What an event of a job says, in words.

import { duration, jobStatus, number, title } from "../words.ts";

const REASONS: Record<string, string> = {
  handed_over: "for its next step",
  released: "as its worker stopped or a service was away",
  worker_lost: "as its worker died",
};

/** The details of an event. Fields that are not known here are listed with their names. */
export function eventText(type: string, data: Record<string, any>): string {
  const { at: _at, attempt: _attempt, ...rest } = data;
  if (type === "started" && rest["worker"]) return `on ${rest["worker"]}`;
  if (type === "queued" && rest["queue"]) return `in ${rest["queue"]}`;
  if (type === "ended" && rest["status"]) return jobStatus(rest["status"]).toLowerCase();
  if (type === "progress" && rest["phase"]) {
    // A total of 0 is one that is not known yet.
    return rest["total"] ? `${title(rest["phase"])}: ${number(rest["done"])} of ${number(rest["total"])} ${rest["unit"]}` : title(rest["phase"]);
  }
  if (type === "requeued") {
    const wait = rest["delay_ms"] > 0 ? `, not before ${duration(rest["delay_ms"] / 1000)} later` : "";
    return (REASONS[rest["why"]] ?? `after an error: ${rest["why"]}`) + wait;
  }
  return Object.entries(rest)
    .filter(([, value]) => value !== null && value !== "")
    .map(([word, value]) => `${word.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}
