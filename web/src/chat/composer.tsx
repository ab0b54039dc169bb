// The composer: a question, the model and the documents that answer it, and the options of the answer.

import { useComputed, useSignal } from "@preact/signals";
import { ArrowUp, FileText, PanelLeft, SlidersHorizontal, Square } from "lucide";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { readDrop, startUpload } from "../documents/uploads.ts";
import { signIn } from "../key.ts";
import { go, href } from "../router.ts";
import { collections, health, models } from "../store.ts";
import type { Model } from "../types.ts";
import { attempt, Icon, IconButton, toast } from "../ui/basics.tsx";
import { messageWanted } from "../ui/focus.ts";
import { number } from "../words.ts";
import type { Conversation } from "./conversation.ts";
import { options, SAMPLING } from "./options.ts";

const coarse = matchMedia("(pointer: coarse)");
const draftName = (talk: Conversation) => `enginehouse.draft.${talk.isNew ? "new" : talk.id}`;

export function Composer({ talk, onAsk, onList, children }: { talk: Conversation; onAsk: (question: string) => void; onList: () => void; children: any }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const text = useSignal(sessionStorage.getItem(draftName(talk)) ?? "");
  const shown = useSignal(false);
  const running = talk.running;
  const locked = signIn.value !== null;
  const sendable = useComputed(() => text.value.trim() !== "");
  useLayoutEffect(() => {
    const box = field.current!;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
  }, [text.value]);
  useEffect(() => {
    const unused = [document.body, document.getElementById("main")].includes(document.activeElement as HTMLElement);
    if (!coarse.matches && unused) field.current!.focus();
  }, []);
  useEffect(() => {
    if (messageWanted.value) field.current!.focus();
    messageWanted.value = false;
  }, [messageWanted.value]);
  const write = (value: string) => {
    text.value = value;
    if (value) sessionStorage.setItem(draftName(talk), value);
    else sessionStorage.removeItem(draftName(talk));
  };
  useEffect(() => {
    // The server did not take the question: it can be changed, and survives a reload.
    const question = talk.returned.value;
    if (question === null) return;
    if (text.value === "") write(question);
    return () => {
      if (text.value === question) write("");
    };
  }, [talk.returned.value]);
  const submit = () => {
    if (!sendable.value || running || locked) return;
    const question = text.value;
    write("");
    onAsk(question);
  };
  const key = (event: KeyboardEvent) => {
    // During input composition (Chinese, Japanese), Enter accepts the word. On a phone it starts a new line.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || coarse.matches) return;
    event.preventDefault();
    submit();
  };
  const dropped = (event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    void readDrop(event.dataTransfer!).then((files) => startUpload(options.collection.value || "default", files));
    options.collection.value ||= "default";
    toast("The files go to the collection that answers.", { action: { label: "Show", run: () => go(href("documents", options.collection.value)) } });
  };
  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); submit(); }} onDragOver={(event) => event.preventDefault()} onDrop={dropped}>
      {children}
      <div class="composer-box">
        {shown.value && <Options />}
        <label class="unseen" for="message">Message</label>
        <textarea ref={field} id="message" rows={1} placeholder="Ask anything" value={text.value} onInput={(event) => write(event.currentTarget.value)} onKeyDown={key} dir="auto" />
        <div class="composer-foot">
          <IconButton class="only-narrow" icon={PanelLeft} label="Chats" onClick={onList} />
          <ModelChip />
          <CollectionChip />
          <IconButton icon={SlidersHorizontal} label="Options" aria-expanded={shown.value} onClick={() => (shown.value = !shown.value)} />
          {running
            ? <button type="button" class="send" aria-label="Stop" title="Stop" disabled={running.id === null || running.stopping.value} onClick={() => attempt(() => talk.stop())}><Icon of={Square} /></button>
            : <button type="submit" class="send primary" aria-label="Send" title="Send" disabled={!sendable.value || locked || health.value === "away"}><Icon of={ArrowUp} size={18} /></button>}
        </div>
      </div>
      <p class="hint desktop-hint">Enter sends, Shift + Enter starts a new line.</p>
    </form>
  );
}

const LOADS = new Set(["unloaded", "loading", "warming", "draining"]);

function modelLabel({ name, state, progress, reason }: Model): string {
  if (state === "ready") return name;
  if (state === "unloaded") return `${name} (loads on demand)`;
  if (state === "not_served") return `${name} (no worker serves it)`;
  if (state === "failed") return `${name} (failed: ${(reason ?? "see its log").slice(0, 60)})`;
  return `${name} (${state}${progress === null ? "" : ` ${Math.round(progress * 100)}%`})`;
}

function ModelChip() {
  // A model, then its adapters, which have its state.
  const offered = (models.value ?? [])
    .filter(({ task }) => task === "generate")
    .flatMap((model) => [model, ...model.adapters.map((name) => ({ ...model, name, default: false }))]);
  const usable = (model: Model) => model.state === "ready" || LOADS.has(model.state);
  const chosen = offered.find(({ name }) => name === options.model.value && offered.some(usable)) ?? offered.find((model) => model.default) ?? offered[0];
  useEffect(() => {
    // A model that no longer exists must not be asked for.
    if (models.value !== null && options.model.value && !offered.some(({ name }) => name === options.model.value)) options.model.value = "";
  }, [models.value]);
  return (
    <label class="chip"><span class="unseen">Model</span>
      <select aria-label="Model" disabled={offered.length === 0} value={chosen?.name ?? ""} title={chosen ? modelLabel(chosen) : "No model"} onChange={(event) => (options.model.value = event.currentTarget.value)}>
        {offered.length === 0 && <option value="">No model</option>}
        {[...offered.filter(usable), ...offered.filter((model) => !usable(model))].map((model) => <option key={model.name} value={model.name} disabled={!usable(model)}>{modelLabel(model)}</option>)}
      </select>
    </label>
  );
}

function CollectionChip() {
  const list = collections.value ?? [];
  const known = list.some(({ name }) => name === options.collection.value);
  return (
    <label class="chip"><Icon of={FileText} size={14} /><span class="unseen">Answer from</span>
      <select aria-label="Answer from" value={options.collection.value} onChange={(event) => (options.collection.value = event.currentTarget.value)}>
        <option value="">No documents</option>
        {!known && options.collection.value && <option value={options.collection.value}>{options.collection.value}</option>}
        {list.map(({ name, documents }) => <option key={name} value={name}>{name} ({number(documents)})</option>)}
      </select>
    </label>
  );
}

function Options() {
  const set = (field: string, text: string) => {
    options.sampling.value = { ...options.sampling.value, [field]: text === "" ? null : Number(text) };
  };
  return (
    <fieldset class="options">
      <legend class="unseen">Options</legend>
      <div class="field">
        <label for="system">System prompt</label>
        <textarea id="system" rows={2} placeholder="Instructions for the model, sent before each question" dir="auto" value={options.system.value} onInput={(event) => (options.system.value = event.currentTarget.value)} />
      </div>
      <div class="fields">
        {SAMPLING.map(([field, label, smallest, largest, step, initial]) => (
          <div class="field" key={field}>
            <label for={`sampling-${field}`}>{label}</label>
            <input id={`sampling-${field}`} type="number" min={smallest} max={largest} step={step} placeholder={initial} value={options.sampling.value[field] ?? ""} onChange={(event) => set(field, event.currentTarget.value)} />
          </div>
        ))}
      </div>
      <button type="button" class="small quiet" onClick={() => { options.sampling.value = {}; options.system.value = ""; }}>Reset</button>
    </fieldset>
  );
}
