// The command palette and the shortcuts of the keyboard.

import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { call } from "./api.ts";
import { go, href } from "./router.ts";
import { collections, loadCollections, me } from "./store.ts";
import type { JobSummary, List } from "./types.ts";
import { Dialog } from "./ui/basics.tsx";
import { startChat } from "./ui/focus.ts";

export const palette = signal(false);
export const shortcutHelp = signal(false);

interface Command {
  title: string;
  hint?: string;
  run: () => void;
}

const SHORTCUTS: [string, string][] = [
  ["Ctrl K", "Go to a view, a collection or a job"],
  ["g c", "Chat"],
  ["g d", "Documents"],
  ["g j", "Jobs"],
  ["g o", "Operations"],
  ["g u", "Usage and limits"],
  ["g w", "Webhooks"],
  ["n", "New chat"],
  ["/", "The search or filter of the view"],
  ["Esc", "Close what is open"],
  ["?", "These shortcuts"],
];
const GO: Record<string, string> = { c: "/", d: "/ui/documents", j: "/ui/jobs", o: "/ui/operations", u: "/ui/usage", w: "/ui/webhooks" };

let prefix = 0;
document.addEventListener("keydown", (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    palette.value = !palette.value;
    return;
  }
  const target = event.target as HTMLElement;
  if (event.metaKey || event.ctrlKey || event.altKey || target.closest("input, textarea, select, [contenteditable], dialog")) return;
  if (event.timeStamp - prefix < 1000 && GO[event.key]) {
    prefix = 0;
    go(GO[event.key]!);
  } else if (event.key === "g") {
    prefix = event.timeStamp;
  } else if (event.key === "n") {
    event.preventDefault();
    startChat();
  } else if (event.key === "/") {
    const field = document.querySelector<HTMLInputElement>("main input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  } else if (event.key === "?") {
    shortcutHelp.value = true;
  }
});

function commands(text: string): Command[] {
  const words = text.trim();
  const list: Command[] = [
    { title: "New chat", hint: "n", run: startChat },
    { title: "Documents", hint: "g d", run: () => go("/ui/documents") },
    { title: "Jobs", hint: "g j", run: () => go("/ui/jobs") },
    { title: "Failed jobs", run: () => go("/ui/jobs?status=failed") },
    ...(me.value?.admin === false ? [] : [{ title: "Operations", hint: "g o", run: () => go("/ui/operations") }, { title: "API keys", run: () => go("/ui/operations/keys") }]),
    { title: "Usage and limits", hint: "g u", run: () => go("/ui/usage") },
    { title: "Webhooks", hint: "g w", run: () => go("/ui/webhooks") },
    { title: "API reference", run: () => location.assign("/docs") },
    { title: "Keyboard shortcuts", hint: "?", run: () => (shortcutHelp.value = true) },
    ...(collections.value ?? []).map(({ name }) => ({ title: `Documents: ${name}`, run: () => go(href("documents", name)) })),
  ];
  const found = list.filter(({ title }) => title.toLowerCase().includes(words.toLowerCase()));
  if (/^job_\w+$/.test(words)) found.unshift({ title: `Job ${words}`, run: () => go(href("jobs", words)) });
  return found;
}

export function Palette() {
  const text = useSignal("");
  const chosen = useSignal(0);
  const jobs = useSignal<Command[]>([]);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    field.current!.focus();
    if (collections.value === null) void loadCollections();
    const abort = new AbortController();
    call<List<JobSummary>>("GET", "/jobs?limit=20&view=summary", { signal: abort.signal }).then(
      ({ data }) => (jobs.value = data.filter(({ summary }) => summary).map((job) => ({ title: `Job: ${job.summary.slice(0, 90)}`, run: () => go(href("jobs", job.id)) }))),
      () => {},
    );
    return () => abort.abort();
  }, []);
  const words = text.value.trim().toLowerCase();
  const found = [...commands(text.value), ...(words ? jobs.value.filter(({ title }) => title.toLowerCase().includes(words)) : [])].slice(0, 12);
  const place = Math.min(chosen.value, found.length - 1);
  const run = (command: Command | undefined) => {
    if (!command) return;
    palette.value = false;
    command.run();
  };
  const key = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step !== 0) {
      event.preventDefault();
      chosen.value = (place + step + found.length) % Math.max(1, found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(found[place]);
    }
  };
  return (
    <Dialog heading="Go to" onClose={() => (palette.value = false)} class="palette">
      <input ref={field} type="text" role="combobox" aria-expanded="true" aria-controls="palette-list" aria-label="View, collection or job" autocomplete="off"
        aria-activedescendant={found.length > 0 ? `palette-${place}` : undefined} placeholder="View, collection, job or its id" value={text.value}
        onInput={(event) => { text.value = event.currentTarget.value; chosen.value = 0; }} onKeyDown={key} />
      <ul id="palette-list" role="listbox" aria-label="Places">
        {found.map((command, at) => (
          <li key={command.title + at} id={`palette-${at}`} role="option" aria-selected={at === place} onClick={() => run(command)} onMouseMove={() => (chosen.value = at)}>
            <span>{command.title}</span>{command.hint && <kbd>{command.hint}</kbd>}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p class="hint" role="status">Nothing has this name.</p>}
    </Dialog>
  );
}

export function ShortcutHelp() {
  return (
    <Dialog heading="Keyboard shortcuts" onClose={() => (shortcutHelp.value = false)}>
      <dl class="shortcuts">{SHORTCUTS.map(([keys, text]) => <div key={keys}><dt>{keys.split(" ").map((one) => <kbd>{one}</kbd>)}</dt><dd>{text}</dd></div>)}</dl>
    </Dialog>
  );
}
