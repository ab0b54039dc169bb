// The chat: the list of chats, the turns, and the composer.

import { useComputed, useSignal } from "@preact/signals";
import {
  ArrowDown, ArrowUp, BookOpen, Download, Ellipsis, FileText, MessageSquare, PanelLeft, Pencil, Plus, RotateCcw, SlidersHorizontal, Square, Trash2, Terminal, Upload,
} from "lucide";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { signIn } from "../key.ts";
import { PageSheet } from "../documents/page_sheet.tsx";
import { go, href, segments } from "../router.ts";
import { collections, health, loadCollections, loadModels, models } from "../store.ts";
import type { Citation, Job, Model } from "../types.ts";
import { attempt, CopyButton, Dialog, Icon, IconButton, Problem, toast } from "../ui/basics.tsx";
import { deleteLater } from "../ui/undo.ts";
import { Markdown } from "../ui/markdown.tsx";
import { duration, number, ordinal, problem, roughly, waitReason } from "../words.ts";
import { conversation, forget, type Conversation, type Turn } from "./conversation.ts";
import { options, SAMPLING } from "./options.ts";
import { byDay, keepSession, removeSession, sessions, type Session } from "./sessions.ts";

const CHOICES_SECONDS = 15;
/** How near to its end, in pixels, the view has to be to follow the answer. */
const NEAR = 80;

export function ChatView() {
  const id = segments.value[0] === "chat" ? segments.value[1] : undefined;
  const talk = conversation(id);
  const listOpen = useSignal(false);
  const cited = useSignal<Citation | null>(null);
  useEffect(() => {
    const load = () => {
      if (document.hidden || signIn.value !== null) return;
      void loadModels();
      void loadCollections();
    };
    load();
    const timer = setInterval(load, CHOICES_SECONDS * 1000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    cited.value = null;
    listOpen.value = false;
  }, [talk]);
  return (
    <div class="chat">
      <h1 class="unseen">Chat</h1>
      <ChatList current={id} open={listOpen.value} onClose={() => (listOpen.value = false)} />
      <Talk key={talk} talk={talk} onList={() => (listOpen.value = !listOpen.value)} onCite={(citation) => (cited.value = citation)} />
      {cited.value && <PageSheet key={cited.value} document={cited.value.document_id} name={cited.value.document} page={cited.value.page}
        start={cited.value.start} end={cited.value.end} quote={cited.value.quote} onClose={() => (cited.value = null)} />}
    </div>
  );
}

function ChatList({ current, open, onClose }: { current: string | undefined; open: boolean; onClose: () => void }) {
  const wanted = useSignal("");
  const words = wanted.value.trim().toLowerCase();
  const list = sessions.value.filter(({ title, turns }) => !words || title.toLowerCase().includes(words) || turns.some(({ question }) => question.toLowerCase().includes(words)));
  return (
    <section class="chats" data-open={open} aria-label="Chats" onKeyDown={(event) => event.key === "Escape" && onClose()}>
      <button type="button" onClick={() => { go("/"); onClose(); setTimeout(() => document.getElementById("message")?.focus()); }}><Icon of={Plus} />New chat</button>
      {sessions.value.length > 0 && <input type="search" aria-label="Search chats" placeholder="Search chats" value={wanted.value} onInput={(event) => (wanted.value = event.currentTarget.value)} />}
      <div class="list">
        {byDay(list).map(([day, members]) => (
          <section key={day} aria-label={day}>
            <h2>{day}</h2>
            <ul>{members.map((session) => <ChatEntry key={session.id} session={session} current={session.id === current} onOpen={onClose} />)}</ul>
          </section>
        ))}
        {words && list.length === 0 && <p class="hint" role="status">No chat has these words.</p>}
      </div>
    </section>
  );
}

function ChatEntry({ session, current, onOpen }: { session: Session; current: boolean; onOpen: () => void }) {
  const menu = useSignal(false);
  const renaming = useSignal(false);
  if (renaming.value) return <li><RenameField session={session} onEnd={() => (renaming.value = false)} /></li>;
  return (
    <li data-current={current}>
      <a href={href("chat", session.id)} aria-current={current ? "page" : undefined} title={session.title} onClick={onOpen}>{session.title}</a>
      <IconButton icon={Ellipsis} label={`More about ${session.title}`} aria-haspopup="dialog" onClick={() => (menu.value = true)} />
      {menu.value && <ChatMenu session={session} onRename={() => { menu.value = false; renaming.value = true; }} onClose={() => (menu.value = false)} />}
    </li>
  );
}

function RenameField({ session, onEnd }: { session: Session; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current!.select(), []);
  const end = (keep: boolean) => {
    // The field loses its focus when it is removed, too.
    const title = field.current?.value.trim();
    if (keep && title) keepSession(session.id, { title, updated: session.updated });
    onEnd();
  };
  return <input ref={field} aria-label="Title of the chat" maxLength={120} defaultValue={session.title} onBlur={() => end(true)}
    onKeyDown={(event) => { if (event.key === "Enter") end(true); else if (event.key === "Escape") end(false); }} />;
}

function ChatMenu({ session, onRename, onClose }: { session: Session; onRename: () => void; onClose: () => void }) {
  const talk = conversation(session.id);
  const remove = () => {
    onClose();
    removeChat(session);
  };
  const save = (name: string, type: string, text: string) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${session.title.replace(/[^\w.-]+/g, "-").slice(0, 50)}.${name}`;
    link.click();
    URL.revokeObjectURL(link.href);
    onClose();
  };
  return (
    <Dialog heading={session.title} onClose={onClose}>
      <div class="menu">
        <button type="button" class="quiet" onClick={onRename}><Icon of={Pencil} />Rename</button>
        <button type="button" class="quiet" onClick={() => save("md", "text/markdown", talk.markdown())}><Icon of={Download} />Export as Markdown</button>
        <button type="button" class="quiet" onClick={() => save("json", "application/json", JSON.stringify(talk.turns.value.map((turn) => ({ question: turn.question, answer: turn.text.value, job: turn.id, state: turn.state.value })), null, 2))}><Icon of={Download} />Export as JSON</button>
        <button type="button" class="quiet danger" onClick={remove}><Icon of={Trash2} />Delete</button>
      </div>
    </Dialog>
  );
}

/** Deletes a chat, on the server only once it can no longer be taken back. */
function removeChat(session: Session): void {
  const putBack = removeSession(session.id);
  if (segments.value[1] === session.id) go("/");
  deleteLater("The chat is deleted.", [`/chat/session/${encodeURIComponent(session.id)}`], { after: () => forget(session.id), undone: putBack });
}

function Talk({ talk, onList, onCite }: { talk: Conversation; onList: () => void; onCite: (citation: Citation) => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const away = useSignal(false);
  const toEnd = () => {
    following.current = true;
    away.value = false;
    scroller.current!.scrollTop = scroller.current!.scrollHeight;
  };
  useLayoutEffect(() => {
    const grown = new ResizeObserver(() => {
      const box = scroller.current!;
      if (talk.turns.peek().length === 0) return;
      if (following.current) box.scrollTop = box.scrollHeight;
      else away.value = box.scrollHeight - box.scrollTop - box.clientHeight > NEAR;
    });
    grown.observe(inner.current!);
    grown.observe(scroller.current!);
    return () => grown.disconnect();
  }, []);
  const scrolled = () => {
    const box = scroller.current!;
    const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    // The answer grows below the view, too: only moving up means that the reader wants to stay.
    if (near) following.current = true;
    else if (box.scrollTop < lastTop.current - 1) following.current = false;
    lastTop.current = box.scrollTop;
    away.value = !near && !following.current;
  };
  const ask = (question: string) => {
    following.current = true;
    void talk.ask(question);
    requestAnimationFrame(toEnd);
  };
  const turns = talk.turns.value;
  return (
    <div class="talk">
      <div ref={scroller} class="turns" tabIndex={0} role="region" aria-label="Conversation" onScroll={scrolled}>
        <div ref={inner}>
          <Problem error={talk.problem.value} />
          {turns.length === 0 && !talk.loading.value && talk.problem.value === null && (talk.id === null ? <FirstVisit onTry={ask} /> : <p class="hint">This chat has no messages on this server.</p>)}
          {turns.map((turn, place) => <TurnView key={turn} turn={turn} talk={talk} onCite={onCite} onAsk={ask} last={place === turns.length - 1} />)}
        </div>
      </div>
      <p class="unseen" role="status">{talk.announcement.value}</p>
      <Composer talk={talk} onAsk={ask} onList={onList}>
        {away.value && turns.length > 0 && <button type="button" class="to-end small" onClick={toEnd}><Icon of={ArrowDown} />To the end</button>}
      </Composer>
    </div>
  );
}

const EXAMPLES = ["Explain a job queue to a new colleague in five sentences.", "Write a Python function that merges two sorted lists, with a test.", "Compare Redis lists and streams in a table."];

function FirstVisit({ onTry }: { onTry: (question: string) => void }) {
  const model = options.model.value || models.value?.find((one) => one.default)?.name;
  const curl = `curl ${location.origin}/generate -H 'Content-Type: application/json' -H 'Prefer: wait=60' \\\n  -d '${JSON.stringify({ messages: [{ role: "user", content: "Hello" }], ...(model ? { model } : {}) })}'`;
  return (
    <div class="first">
      <h1>Ask the models of this server</h1>
      <p class="lead">Enginehouse runs language models on your own machines. Chat here, let it answer from your documents with citations, or call it from your code: everything becomes a job that you can watch.</p>
      <div class="tries">
        {EXAMPLES.map((text) => <button key={text} type="button" disabled={signIn.value !== null} onClick={() => onTry(text)}><Icon of={MessageSquare} /><span>{text}</span></button>)}
        <a class="button" href="/ui/documents"><Icon of={Upload} /><span>Drop documents, and ask about them</span></a>
      </div>
      <p class="hint"><Icon of={Terminal} /> The same from your code, or see the <a href="/docs">API reference</a>:</p>
      <div class="curl"><pre>{curl}</pre><CopyButton text={curl} label="Copy the curl command" /></div>
    </div>
  );
}

function TurnView({ turn, talk, onCite, onAsk, last }: { turn: Turn; talk: Conversation; onCite: (citation: Citation) => void; onAsk: (question: string) => void; last: boolean }) {
  const editing = useSignal(false);
  const citations = ((turn.job.value?.result as { citations?: Citation[] } | null)?.citations ?? []) as Citation[];
  const [cite] = useState(() => (marker: string) => {
    const now = ((turn.job.value?.result as { citations?: Citation[] } | null)?.citations ?? []) as Citation[];
    const citation = now.find((one) => one.marker === marker);
    return citation ? <button type="button" class="marker" aria-label={`Passage ${marker}: ${citation.document}, page ${citation.page}`} onClick={() => onCite(citation)}>{marker}</button> : null;
  });
  const text = turn.text.value;
  const again = () => {
    if (turn.state.value !== "completed") talk.drop(turn);
    onAsk(turn.question);
  };
  return (
    <article class="turn" data-state={turn.state.value}>
      {editing.value ? <EditQuestion turn={turn} onAsk={(question) => { editing.value = false; onAsk(question); }} onCancel={() => (editing.value = false)} /> : <p class="question" dir="auto">{turn.question}</p>}
      <div class="answer" dir="auto" aria-busy={turn.running}>
        {turn.reasoning.value && <details class="reasoning" open={turn.running && text === ""}><summary>Reasoning</summary><Markdown text={turn.reasoning.value} /></details>}
        {/* Markers are known only at the end, so the text is drawn again then. */}
        {text && <Markdown key={citations.length} text={text} cite={citations.length > 0 ? cite : undefined} />}
        {turn.state.value === "completed" && !text && <p class="hint">The model returned an empty answer.</p>}
        {turn.running && <Waiting turn={turn} />}
        {turn.state.value === "cancelled" && <p class="hint stopped">Stopped.</p>}
        {turn.error.value && <p class="notice bad" role="alert">{problem(turn.error.value)}</p>}
        {citations.length > 0 && <Sources text={text} citations={citations} onCite={onCite} />}
      </div>
      {!turn.running && (
        <div class="turn-tools">
          {text && <CopyButton text={text} label="Copy answer" />}
          {!talk.running && <IconButton icon={RotateCcw} label={turn.state.value === "completed" ? "Ask again" : "Try again"} onClick={again} />}
          {!talk.running && <IconButton icon={Pencil} label="Edit the question" onClick={() => (editing.value = true)} />}
          {turn.id && <a class="hint details" href={href("jobs", turn.id)}>{turn.job.value ? facts(turn.job.value) : "Job"}</a>}
        </div>
      )}
    </article>
  );
}

function EditQuestion({ turn, onAsk, onCancel }: { turn: Turn; onAsk: (question: string) => void; onCancel: () => void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current!.focus(), []);
  return (
    <form class="edit" onSubmit={(event) => { event.preventDefault(); if (field.current!.value.trim()) onAsk(field.current!.value); }}>
      <label class="unseen" for={`edit-${turn.id}`}>The question</label>
      <textarea ref={field} id={`edit-${turn.id}`} rows={3} defaultValue={turn.question} onKeyDown={(event) => event.key === "Escape" && onCancel()} />
      <div class="dialog-foot"><button type="button" onClick={onCancel}>Cancel</button><button type="submit" class="primary">Ask</button></div>
    </form>
  );
}

function facts(job: Job): string {
  const result = job.result as { usage?: { completion_tokens: number }; finish_reason?: string } | null;
  const parts = [job.model ?? job.kind];
  const tokens = result?.usage?.completion_tokens;
  const { first_token: first, total } = job.timings;
  if (tokens !== undefined) {
    parts.push(`${number(tokens)} tokens`);
    if (first !== null && total !== null && total - first > 0.05) parts.push(`${(tokens / (total - first)).toFixed(0)} tok/s`);
  }
  if (first !== null && first !== undefined) parts.push(`first after ${duration(first)}`);
  if (result?.finish_reason === "length") parts.push("cut off at the length limit");
  return parts.join(" · ");
}

function Waiting({ turn }: { turn: Turn }) {
  const job = turn.job.value;
  if (turn.trouble.value) return <p class="wait status">{turn.trouble.value}</p>;
  if (turn.text.value && !turn.stopping.value) return null;
  const estimate = job?.estimated_wait?.seconds;
  return (
    <div class="wait status">
      {waitingWords(turn, job)}
      <progress aria-label="Waiting" {...(job?.status === "queued" && estimate ? { value: Math.min(0.95, (Date.now() / 1000 - job.created_at) / (Date.now() / 1000 - job.created_at + estimate)), max: 1 } : {})} />
    </div>
  );
}

function waitingWords(turn: Turn, job: Job | null): string {
  if (turn.stopping.value) return "Stopping…";
  if (turn.state.value === "sending" || job === null) return "Sending…";
  if (turn.state.value === "queued") {
    const position = job.queue_position;
    const estimate = job.estimated_wait;
    const place = position === null || position === undefined ? "Queued" : position === 1 ? "Next in line" : `${ordinal(position)} in line`;
    const time = estimate ? `, ${roughly(estimate.seconds)}` : "";
    const reason = job.waiting_for && job.waiting_for !== "worker" ? `, waiting ${waitReason(job.waiting_for)}` : "";
    return `${place}${time}${reason}`;
  }
  return job.attempts.at(-1)?.queue.startsWith("gpu.") ? "Reading the question…" : turn.collection ? "Searching the documents…" : "Starting…";
}

function Sources({ text, citations, onCite }: { text: string; citations: Citation[]; onCite: (citation: Citation) => void }) {
  const used = citations.filter(({ marker }) => text.includes(marker));
  const others = citations.filter((citation) => !used.includes(citation));
  const entry = (citation: Citation, unused: boolean) => (
    <button key={citation.marker} type="button" class={unused ? "small unused" : "small"} onClick={() => onCite(citation)}><Icon of={BookOpen} size={14} /><span>{citation.marker} {citation.document}, page {citation.page}</span></button>
  );
  return (
    <>
      {used.length > 0 && <div class="sources" role="group" aria-label="Sources">{used.map((citation) => entry(citation, false))}</div>}
      {others.length > 0 && (
        <details class="reasoning" open={used.length === 0}><summary>{used.length === 0 ? "Passages found, none of which the answer refers to" : `Also found (${others.length})`}</summary>
          <div class="sources" role="group" aria-label="Other passages">{others.map((citation) => entry(citation, true))}</div></details>
      )}
    </>
  );
}

const coarse = matchMedia("(pointer: coarse)");
const draftName = (talk: Conversation) => `enginehouse.draft.${talk.id ?? "new"}`;

function Composer({ talk, onAsk, onList, children }: { talk: Conversation; onAsk: (question: string) => void; onList: () => void; children: any }) {
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
    if (!coarse.matches && document.activeElement === document.body) field.current!.focus();
  }, []);
  const write = (value: string) => {
    text.value = value;
    if (value) sessionStorage.setItem(draftName(talk), value);
    else sessionStorage.removeItem(draftName(talk));
  };
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
    void import("../documents/uploads.ts").then(({ startUpload, readDrop }) => readDrop(event.dataTransfer!).then((files) => startUpload(options.collection.value || "default", files)));
    options.collection.value ||= "default";
    toast("The files go to the collection that answers.", { action: { label: "Show", run: () => go(href("documents", options.collection.value)) } });
  };
  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); submit(); }} onDragOver={(event) => event.preventDefault()} onDrop={dropped}>
      {children}
      <div class="composer-box">
        {shown.value && <SamplingOptions />}
        <label class="unseen" for="message">Message</label>
        <textarea ref={field} id="message" rows={1} placeholder="Ask anything" value={text.value} onInput={(event) => write(event.currentTarget.value)} onKeyDown={key} dir="auto" />
        <div class="composer-foot">
          <IconButton class="only-narrow" icon={PanelLeft} label="Chats" onClick={onList} />
          <ModelChip />
          <CollectionChip />
          <IconButton icon={SlidersHorizontal} label="Sampling" aria-pressed={shown.value} onClick={() => (shown.value = !shown.value)} />
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
  const offered = (models.value ?? []).filter(({ task }) => task === "generate");
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

function SamplingOptions() {
  const set = (field: string, text: string) => {
    options.sampling.value = { ...options.sampling.value, [field]: text === "" ? null : Number(text) };
  };
  return (
    <fieldset class="options">
      <legend class="unseen">Sampling</legend>
      <div class="fields">
        {SAMPLING.map(([field, label, smallest, largest, step, initial]) => (
          <div class="field" key={field}>
            <label for={`sampling-${field}`}>{label}</label>
            <input id={`sampling-${field}`} type="number" min={smallest} max={largest} step={step} placeholder={initial} value={options.sampling.value[field] ?? ""} onChange={(event) => set(field, event.currentTarget.value)} />
          </div>
        ))}
      </div>
      <button type="button" class="small quiet" onClick={() => (options.sampling.value = {})}>Reset</button>
    </fieldset>
  );
}
