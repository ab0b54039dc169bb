// Statuses, times, sizes and counts as text.

export const JOB_STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled", "expired"] as const;

const JOB: Record<string, string> = {
  queued: "Queued",
  in_progress: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

const DOCUMENT: Record<string, string> = {
  uploaded: "Waiting",
  parsing: "Reading",
  chunking: "Chunking",
  embedding: "Embedding",
  indexing: "Indexing",
  ready: "Ready",
  empty: "No text",
  needs_ocr: "Needs OCR",
  encrypted: "Encrypted",
  unsupported: "Unsupported",
  too_large: "Too large",
  failed: "Failed",
  replaced: "Replaced",
};
export const DOCUMENT_STATUSES = Object.keys(DOCUMENT);
const UNFINISHED = new Set(["uploaded", "parsing", "chunking", "embedding", "indexing"]);

const KIND: Record<string, string> = {
  generate: "Answer",
  ingest: "Read document",
  search: "Search",
  delete: "Delete",
  reindex: "Reindex",
  unpack: "Unpack archive",
  fetch: "Fetch address",
  batch: "Batch",
  embed: "Embed texts",
  rerank: "Rerank texts",
  tokenize: "Count tokens",
  request_batch: "Batch of requests",
};
export const JOB_KINDS = Object.keys(KIND);

export const jobKind = (kind: string) => KIND[kind] ?? title(kind.replaceAll("_", " "));
export const jobStatus = (status: string) => JOB[status] ?? status;
export const documentStatus = (status: string) => DOCUMENT[status] ?? status;
export const isUnfinished = (status: string) => UNFINISHED.has(status);
export const isAmiss = (status: string) => !UNFINISHED.has(status) && status !== "ready" && status !== "replaced";
export const title = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

const WAITING: Record<string, string> = {
  worker: "for a worker",
  paused: "because its queue is paused",
  fair_share: "for its owner's turn",
  concurrency_limit: "for other jobs with its concurrency key to end",
  running_limit: "for other jobs to end, as no more may run at once",
  model_loading: "while the model loads",
  gpu_busy: "for the GPU, which runs another model",
  model_not_loaded: "until an operator loads the model",
  retry_backoff: "for its next attempt",
  not_before: "for the time at which it may start",
  previous_turn: "for the previous message",
};
export const waitReason = (reason: string | null | undefined) => (reason ? (WAITING[reason] ?? `for ${reason.replaceAll("_", " ")}`) : "");

const NUMBER = new Intl.NumberFormat("en");
export const number = (value: number) => NUMBER.format(value);
export const count = (value: number, one: string, many = `${one}s`) => `${NUMBER.format(value)} ${value === 1 ? one : many}`;

export function ordinal(value: number): string {
  const ending = { one: "st", two: "nd", few: "rd", other: "th" } as Record<string, string>;
  return `${value}${ending[new Intl.PluralRules("en", { type: "ordinal" }).select(value)]}`;
}

/** A duration in seconds. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60 + 0.5 / 60);
  if (minutes < 60) return `${minutes} min${Math.round(seconds % 60) % 60 ? ` ${Math.round(seconds % 60)} s` : ""}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return count(Math.floor(hours / 24), "day");
}

/** A rough duration, for estimates: "about 20 s". */
export function roughly(seconds: number): string {
  if (seconds < 8) return "a few seconds";
  if (seconds < 55) return `about ${Math.round(seconds / 5) * 5} s`;
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes < 60 ? `about ${minutes} min` : `about ${count(Math.round(minutes / 60), "hour")}`;
}

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

// Made once: toLocaleString makes a format for each call, which takes half a millisecond, and a list has a time in each row.
const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" });
const FULL = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });

export function ago(seconds: number, now = Date.now() / 1000): string {
  const past = now - seconds;
  if (past < 5) return "now";
  if (past < 60) return RELATIVE.format(-Math.floor(past), "second");
  if (past < 3600) return RELATIVE.format(-Math.floor(past / 60), "minute");
  if (past < 86_400) return RELATIVE.format(-Math.floor(past / 3600), "hour");
  if (past < 86_400 * 30) return RELATIVE.format(-Math.floor(past / 86_400), "day");
  return DAY.format(seconds * 1000);
}

/** The time of day, for charts. */
export const clockTime = (seconds: number, exact: boolean) => new Date(seconds * 1000).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", ...(exact ? { second: "2-digit" } : {}), hourCycle: "h23" });

export const fullTime = (seconds: number) => FULL.format(seconds * 1000);

export function bytes(size: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = size;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Sizes in a message of the API, such as "1000000 bytes", in units that people read. */
export function readable(message: string): string {
  return message
    .replace(/\b(\d{4,}) bytes\b/g, (_, size: string) => bytes(Number(size)))
    .replace(/(?<![\w/@.:-])\d{5,}\b(?! *[-:])/g, (digits) => (digits.length < 13 ? number(Number(digits)) : digits));
}

/** What to do about a document that could not be read, in words of this page. */
export function documentReason(status: string, reason: string | null): string {
  if (status === "encrypted") return "The file is protected by a password.";
  if (status === "failed" && reason && /Error|Exception|pdfium|pypdf/.test(reason)) return "The file is damaged, or not what its name says.";
  return readable(reason ?? "");
}

/** Why a job failed, in words of this page. */
export function jobReason({ kind, error }: { kind: string; error: { code: string; message: string } | null }): string {
  if (error === null) return "";
  return kind === "ingest" ? documentReason(error.code === "encrypted" ? "encrypted" : "failed", error.message) : readable(error.message || error.code);
}

/** What went wrong with a call, in words of this page. */
export function problem(error: { code: string; message: string; status?: number }): string {
  if (["key_missing", "key_unknown", "key_expired"].includes(error.code)) return "Sign in to go on.";
  if (error.code === "keys_missing") return "No API key exists yet, so only the user of the server's own machine may use this page.";
  return readable(error.message);
}

/** Where a passage is, and that it was read from a picture, in which letters may be wrong. */
export function pageOf({ page, source }: { page: number; source?: "text" | "ocr" }): string {
  return `page ${page}${source === "ocr" ? ", read by OCR" : ""}`;
}
