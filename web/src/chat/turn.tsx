// A turn: its question, its answer while it waits, is written and has ended, and what can be done with it.

import { useSignal } from "@preact/signals";
import { BookOpen, ChevronLeft, ChevronRight, Pencil, RotateCcw } from "lucide";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { later } from "../later.tsx";
import { href } from "../router.ts";
import type { ChatTurn, Citation, Job } from "../types.ts";
import { attempt, CopyButton, Icon, IconButton } from "../ui/basics.tsx";
import { duration, number, ordinal, pageOf, problem, roughly, waitReason } from "../words.ts";
import type { Conversation, Turn } from "./conversation.ts";

const coarse = matchMedia("(pointer: coarse)");
const loadMarkdown = async () => (await import("../ui/markdown.tsx")).Markdown;
const Markdown = later(loadMarkdown);

export function TurnView({ turn, talk, onCite, onAct }: { turn: Turn; talk: Conversation; onCite: (citation: Citation) => void; onAct: (action: () => Promise<void>) => void }) {
  const editing = useSignal<Turn | null>(null);
  const citations = turn.record.value?.citations ?? [];
  const cite = useMemo(() => (marker: string) => {
    const citation = turn.record.peek()?.citations.find((one) => one.marker === marker);
    return citation ? <button type="button" class="marker" aria-label={`Passage ${marker}: ${citation.document}, ${pageOf(citation)}`} onClick={() => onCite(citation)}>{marker}</button> : null;
  }, [turn]);
  useEffect(() => {
    // The first words may come a second later. If this fails, they try again.
    loadMarkdown().catch(() => {});
  }, []);
  const retrieval = turn.record.value?.retrieval ?? null;
  const text = turn.text.value;
  const state = turn.state.value;
  const isEdited = editing.value === turn;
  const edit = (question: string) => {
    editing.value = null;
    onAct(() => talk.edit(turn, question));
  };
  return (
    <article class="turn" data-state={state}>
      {isEdited ? <EditQuestion turn={turn} onAsk={edit} onCancel={() => (editing.value = null)} /> : <p class="question" dir="auto">{turn.question}</p>}
      {retrieval?.rewritten && <p class="hint searched" dir="auto">Searched for “{retrieval.query}”</p>}
      <div class="answer" dir="auto" aria-busy={turn.running}>
        {turn.reasoning.value && <details class="reasoning" open={turn.running && text === ""}><summary>Reasoning</summary><Markdown text={turn.reasoning.value} /></details>}
        {/* Markers are known only at the end, so the text is drawn again then. */}
        {text && <Markdown key={`${turn.id} ${citations.length}`} text={text} cite={citations.length > 0 ? cite : undefined} />}
        {state === "completed" && !text && <p class="hint">The model returned an empty answer.</p>}
        {turn.running && <Waiting turn={turn} />}
        {state === "cancelled" && <p class="hint stopped">Stopped.</p>}
        {turn.error.value && <p class="notice bad" role="alert">{problem(turn.error.value)}</p>}
        {turn.record.value?.grounded === false && state === "completed" && <p class="notice" role="note">Not found in the documents: the model read no passage.</p>}
        {retrieval?.unknown_markers.length ? <p class="hint">No passage has the number {retrieval.unknown_markers.join(", ")}.</p> : null}
        {retrieval?.warnings.map((words) => <p class="notice" key={words}>{words}</p>)}
        {citations.length > 0 && <Sources text={text} citations={citations} onCite={onCite} />}
      </div>
      <div class="turn-tools">
        <Versions turn={turn} talk={talk} />
        {!turn.running && text && <CopyButton text={text} label="Copy answer" />}
        {!turn.running && !talk.running && <IconButton icon={RotateCcw} label={state === "completed" ? "Ask again" : "Try again"} onClick={() => onAct(() => talk.regenerate(turn))} />}
        {!turn.running && !talk.running && <IconButton icon={Pencil} label="Edit the question" onClick={() => (editing.value = turn)} />}
        {!turn.running && turn.id?.startsWith("job_") && <a class="hint details" href={href("jobs", turn.id)} title="The job of this answer">{turn.record.value ? facts(turn.record.value) : "Job"}</a>}
      </div>
    </article>
  );
}

/** The arrows between the versions of a question and of its answer. */
function Versions({ turn, talk }: { turn: Turn; talk: Conversation }) {
  const siblings = turn.record.value?.siblings ?? [];
  if (siblings.length < 2 || turn.id === null) return null;
  const place = siblings.indexOf(turn.id);
  // A button that is disabled would lose the focus.
  const arrow = (step: number, icon: typeof ChevronLeft, label: string) => {
    const next = siblings[place + step];
    return <IconButton icon={icon} label={label} aria-disabled={next === undefined} onClick={() => next !== undefined && attempt(() => talk.choose(next))} />;
  };
  return (
    <div class="versions" role="group" aria-label="Versions of this turn">
      {arrow(-1, ChevronLeft, "Previous version")}
      <span>{place + 1} of {siblings.length}</span>
      {arrow(1, ChevronRight, "Next version")}
    </div>
  );
}

function EditQuestion({ turn, onAsk, onCancel }: { turn: Turn; onAsk: (question: string) => void; onCancel: () => void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current!.focus(), []);
  const submit = () => field.current!.value.trim() && onAsk(field.current!.value);
  const key = (event: KeyboardEvent) => {
    if (event.key === "Escape") onCancel();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || coarse.matches) return;
    event.preventDefault();
    submit();
  };
  return (
    <form class="edit" onSubmit={(event) => { event.preventDefault(); submit(); }}>
      <label class="unseen" for={`edit-${turn.id}`}>The question</label>
      <textarea ref={field} id={`edit-${turn.id}`} rows={Math.min(12, turn.question.split("\n").length + 2)} dir="auto" defaultValue={turn.question} onKeyDown={key} />
      <div class="dialog-foot"><button type="button" onClick={onCancel}>Cancel</button><button type="submit" class="primary">Ask</button></div>
    </form>
  );
}

function facts({ model, usage, timings, finish_reason }: ChatTurn): string {
  const parts = model ? [model] : [];
  const tokens = usage?.completion_tokens;
  const { first_token: first, total } = timings;
  if (tokens !== undefined) {
    parts.push(`${number(tokens)} tokens`);
    if (first !== null && total !== null && total - first > 0.05) parts.push(`${(tokens / (total - first)).toFixed(0)} tok/s`);
  }
  if (first !== null) parts.push(`first after ${duration(first)}`);
  if (finish_reason === "length") parts.push("cut off at the length limit");
  return parts.join(" · ") || "Job";
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
  if (turn.state.value === "sending") return "Sending…";
  if (turn.state.value === "queued") {
    const position = job?.queue_position;
    const estimate = job?.estimated_wait;
    const place = position === null || position === undefined ? "Queued" : position === 1 ? "Next in line" : `${ordinal(position)} in line`;
    const time = estimate ? `, ${roughly(estimate.seconds)}` : "";
    const reason = job?.waiting_for && job.waiting_for !== "worker" ? `, waiting ${waitReason(job.waiting_for)}` : "";
    return `${place}${time}${reason}`;
  }
  if (job?.progress?.phase === "rewriting") return "Rewording the question for the search…";
  return job?.attempts.at(-1)?.queue.startsWith("gpu.") ? "Reading the question…" : turn.collection ? "Searching the documents…" : "Starting…";
}

function Sources({ text, citations, onCite }: { text: string; citations: Citation[]; onCite: (citation: Citation) => void }) {
  const used = citations.filter(({ marker }) => text.includes(marker));
  const others = citations.filter((citation) => !used.includes(citation));
  const entry = (citation: Citation, unused: boolean) => (
    <button key={citation.marker} type="button" class={unused ? "small unused" : "small"} onClick={() => onCite(citation)}><Icon of={BookOpen} size={14} /><span>{citation.marker} {citation.document}, {pageOf(citation)}</span></button>
  );
  return (
    <>
      {used.length > 0 && <div class="sources" role="group" aria-label="Sources">{used.map((citation) => entry(citation, false))}</div>}
      {others.length > 0 && (
        <details class="reasoning"><summary>{used.length === 0 ? "Passages found, none of which the answer refers to" : `Also found (${others.length})`}</summary>
          <div class="sources" role="group" aria-label="Other passages">{others.map((citation) => entry(citation, true))}</div></details>
      )}
    </>
  );
}

