// Formats statuses, times and sizes.

const JOB = {
  queued: ["Queued", "quiet"],
  in_progress: ["Running", "busy"],
  completed: ["Completed", "good"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", "quiet"],
  expired: ["Expired", "bad"],
};

const DOCUMENT = {
  uploaded: ["Waiting", "quiet"],
  parsing: ["Reading", "busy"],
  chunking: ["Chunking", "busy"],
  embedding: ["Embedding", "busy"],
  indexing: ["Indexing", "busy"],
  ready: ["Ready", "good"],
  empty: ["No text", "bad"],
  needs_ocr: ["Needs OCR", "bad"],
  encrypted: ["Encrypted", "bad"],
  unsupported: ["Unsupported", "bad"],
  too_large: ["Too large", "bad"],
  failed: ["Failed", "bad"],
  replaced: ["Replaced", "quiet"],
};

const UNFINISHED_DOCUMENT = new Set(["uploaded", "parsing", "chunking", "embedding", "indexing"]);

/** `[word, tone]` of a status. */
export const jobStatus = (job) => {
  if (job.cancel_requested_at !== null && job.ended_at === null) return ["Stopping", "busy"];
  return JOB[job.status] ?? [job.status, "quiet"];
};
export const documentStatus = (status) => DOCUMENT[status] ?? [status, "quiet"];
export const underWay = (found) => UNFINISHED_DOCUMENT.has(found.status);

export const kind = (name) => name.charAt(0).toUpperCase() + name.slice(1);

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A duration in seconds, as text. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A time in Unix seconds, as text; the date is added if it is not today. */
export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const then = new Date(seconds * 1000);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

export function bytes(size) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  let value = size;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
