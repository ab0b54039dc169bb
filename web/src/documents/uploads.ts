// Uploads: all files of one drop are one batch, sent in a few requests and followed until the last one is read.

import { signal } from "@preact/signals";
import { ApiError, call, pause } from "../api.ts";
import { refresh } from "../resource.ts";
import type { Job } from "../types.ts";
import { problem } from "../words.ts";

const FILES_PER_REQUEST = 100;
const BYTES_PER_REQUEST = 32_000_000;
const LOOK_SECONDS = 1;
const MOST_PATIENCE = 60;

export interface NamedFile {
  name: string;
  file: File;
}

export interface Upload {
  collection: string;
  files: number;
  sent: number;
  duplicates: number;
  refused: { name: string; reason: string; file: File; again: boolean }[];
  waiting: string | null;
  batch: Job | null;
  started: number;
  done: boolean;
}

export const upload = signal<Upload | null>(null);

/** The files of a drop, those of its folders included, named by their paths. */
export async function readDrop(data: DataTransfer): Promise<NamedFile[]> {
  // The entries have to be taken before the first pause: the browser empties the list after the event.
  const entries = [...data.items].map((item) => (item.kind === "file" ? (item.webkitGetAsEntry?.() ?? item.getAsFile()) : null));
  const files: NamedFile[] = [];
  for (const entry of entries) {
    if (entry instanceof File) files.push({ name: entry.name, file: entry });
    else if (entry) await readEntry(entry, files);
  }
  if (files.length === 0) for (const file of data.files) files.push({ name: file.name, file });
  return files;
}

async function readEntry(entry: FileSystemEntry, files: NamedFile[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    files.push({ name: entry.fullPath.replace(/^\//, "") || file.name, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader returns at most 100 entries at a time.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const one of some) await readEntry(one, files);
  }
}

export const chosenFiles = (files: FileList): NamedFile[] => [...files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

function change(part: Partial<Upload>): void {
  if (upload.value !== null) upload.value = { ...upload.value, ...part };
}

export async function startUpload(collection: string, files: NamedFile[]): Promise<void> {
  if (files.length === 0) return;
  upload.value = { collection, files: files.length, sent: 0, duplicates: 0, refused: [], waiting: null, batch: null, started: Date.now() / 1000, done: false };
  try {
    const batch = await patiently(() => call<Job>("POST", "/batches", { json: { metadata: { from: "page" } }, headers: { "Idempotency-Key": key() } }));
    change({ batch });
    const followed = follow(batch.id);
    for (const some of parts(files)) await sendPart(collection, batch.id, some);
    await patiently(() => call("POST", `/jobs/${batch.id}/seal`));
    await followed;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const left = files.slice(upload.value?.sent ?? 0);
    change({ refused: [...(upload.value?.refused ?? []), ...left.map(({ name, file }) => ({ name, file, reason: problem(error), again: true }))] });
  }
  change({ done: true, waiting: null });
  refresh();
}

export function sendRefusedAgain(): void {
  const { collection, refused } = upload.value!;
  void startUpload(collection, refused.filter(({ again }) => again).map(({ name, file }) => ({ name, file })));
}

function* parts(files: NamedFile[]): Generator<NamedFile[]> {
  let some: NamedFile[] = [];
  let size = 0;
  for (const one of files) {
    if (some.length > 0 && (some.length >= FILES_PER_REQUEST || size + one.file.size > BYTES_PER_REQUEST)) {
      yield some;
      some = [];
      size = 0;
    }
    some.push(one);
    size += one.file.size;
  }
  if (some.length > 0) yield some;
}

async function sendPart(collection: string, batch: string, files: NamedFile[]): Promise<void> {
  const idempotency = key();
  try {
    const answer = await patiently(() => {
      const form = new FormData();
      for (const { name, file } of files) form.append("file", file, name);
      return call("POST", `/collections/${encodeURIComponent(collection)}/documents?batch=${batch}`, { form, headers: { "Idempotency-Key": idempotency } });
    });
    const duplicates = answer.data.filter((one: { duplicate: boolean }) => one.duplicate).length;
    change({ sent: upload.value!.sent + files.length, duplicates: upload.value!.duplicates + duplicates });
    if (upload.value!.sent <= FILES_PER_REQUEST) refresh();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (files.length > 1 && (error.status === 413 || error.status === 422 || error.status === 400)) {
      // One of the files is at fault: sent alone, the others are accepted.
      for (const one of files) await sendPart(collection, batch, [one]);
      return;
    }
    const again = error.temporary;
    change({
      sent: upload.value!.sent + files.length,
      refused: [...upload.value!.refused, ...files.map(({ name, file }) => ({ name, file, reason: problem(error), again }))],
    });
    if (error.code === "quota_exceeded" || error.code === "batch_sealed") throw error;
  }
}

/** Repeats a call that may succeed later, as late as the server asks. */
async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures += 1) {
    try {
      const answer = await attempt();
      change({ waiting: null });
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError) || !error.temporary || failures >= 20) throw error;
      const seconds = Math.min(MOST_PATIENCE, error.retryAfter ?? Math.min(10, 2 ** failures / 2));
      change({ waiting: error.status === 0 ? "The server does not respond. The upload goes on as soon as it does." : "The server asks to wait a moment. The upload goes on by itself." });
      await pause(seconds);
    }
  }
}

/** Shows the counts of a batch until it has ended. */
async function follow(id: string): Promise<void> {
  let seconds = LOOK_SECONDS;
  for (;;) {
    try {
      const batch = await call<Job>("GET", `/jobs/${id}`);
      if (upload.value?.batch?.id !== id) return;
      change({ batch });
      if (batch.ended_at !== null) return;
      seconds = LOOK_SECONDS;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!error.temporary) throw error;
      seconds = error.retryAfter ?? 2 * LOOK_SECONDS;
    }
    await pause(seconds);
  }
}

const key = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
