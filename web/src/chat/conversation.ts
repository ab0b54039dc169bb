// One chat: the branch that is shown, and its running answer. It lives outside of the view, so that an answer goes on while another view
// is shown. The server keeps all turns, also those that run, failed or were stopped.

import { batch, signal } from "@preact/signals";
import { ApiError, call, followEvents, pause } from "../api.ts";
import { identity, signedIn } from "../key.ts";
import { refreshes } from "../resource.ts";
import { go, href, segments } from "../router.ts";
import type { ChatEntry, ChatTurn, ChatTurns, Job } from "../types.ts";
import { options } from "./options.ts";
import { keepSession } from "./sessions.ts";

export type TurnState = "sending" | ChatTurn["status"];

const POSITION_SECONDS = 2;
const RUNNING = new Set<TurnState>(["sending", "queued", "in_progress"]);

const randomId = (): string => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;

export class Turn {
  readonly state = signal<TurnState>("sending");
  readonly text = signal("");
  readonly reasoning = signal("");
  /** What the server says about the turn; null until it has it. */
  readonly record = signal<ChatTurn | null>(null);
  /** Its job while it waits. */
  readonly job = signal<Job | null>(null);
  readonly error = signal<{ code: string; message: string } | null>(null);
  readonly trouble = signal<string | null>(null);
  readonly stopping = signal(false);
  readonly question: string;
  readonly collection: string | null;
  /** The turn before it, as it was asked. */
  readonly parent: string | null;
  /** If the reply to the question got lost, asking it again with the same key makes no second one. */
  readonly key: string;
  following = false;
  id: string | null = null;

  constructor(question: string, collection: string | null, parent: string | null = null, key = randomId()) {
    this.question = question;
    this.collection = collection;
    this.parent = parent;
    this.key = key;
  }

  get running(): boolean {
    return RUNNING.has(this.state.value);
  }

  update(record: ChatTurn): void {
    batch(() => {
      this.id = record.id;
      this.record.value = record;
      const hasEnded = !RUNNING.has(record.status);
      if (hasEnded) {
        this.text.value = record.answer ?? "";
        this.reasoning.value = record.reasoning || this.reasoning.value;
        this.stopping.value = false;
        this.trouble.value = null;
        this.error.value = record.status === "expired" ? { code: "expired", message: "The question waited too long and has expired." } : record.status === "failed" ? record.error : null;
      }
      if (hasEnded || !this.following) this.state.value = record.status;
    });
  }
}

export class Conversation {
  readonly turns = signal<Turn[]>([]);
  readonly loading = signal(false);
  readonly problem = signal<ApiError | null>(null);
  /** A question that the server did not take, for the composer. */
  readonly returned = signal<string | null>(null);
  /** The words of the end of the last answer, for screen readers. */
  readonly announcement = signal("");
  readonly id: string;
  isNew: boolean;
  private count = 0;
  private readonly abort = new AbortController();

  constructor(id: string | null) {
    this.isNew = id === null;
    this.id = id ?? `chat-${randomId()}`;
    if (id !== null) void this.load();
  }

  private get path(): string {
    return `/chat/sessions/${encodeURIComponent(this.id)}`;
  }

  get running(): Turn | null {
    return this.turns.value.findLast((turn) => turn.running) ?? null;
  }

  close(): void {
    this.abort.abort();
  }

  async load(): Promise<void> {
    this.loading.value = this.turns.value.length === 0;
    try {
      this.show(await call<ChatTurns>("GET", `${this.path}/turns`, { signal: this.abort.signal }));
      this.problem.value = null;
    } catch (error) {
      if (this.abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.problem.value = error.code === "session_not_found" ? new ApiError("This chat does not exist. It may have been deleted, or it belongs to somebody else.", error.code, error.status) : error;
    } finally {
      this.loading.value = false;
    }
  }

  /** Another tab may have gone on with this chat. */
  compare(entry: ChatEntry): void {
    if (entry.turns !== this.count && this.running === null && !this.loading.value) void this.load();
  }

  private show({ session, data }: ChatTurns): void {
    const known = new Map(this.turns.value.filter(({ id }) => id !== null).map((turn) => [turn.id, turn]));
    const turns = data.map((record) => {
      const turn = known.get(record.id) ?? new Turn(record.message, record.collection);
      turn.update(record);
      return turn;
    });
    this.count = session.turns;
    this.turns.value = [...turns, ...this.turns.value.filter(({ id }) => id === null)];
    keepSession(session);
    for (const turn of turns) if (turn.running && !turn.following) void this.follow(turn);
  }

  /** Asks a question after the last turn, or after `parent`: null makes it a first one. */
  async ask(question: string, parent = this.lastId, key = randomId()): Promise<void> {
    const turn = new Turn(question, options.collection.value || null, parent, key);
    const kept = this.turns.value.filter(({ id }) => id !== null);
    const after = parent === null ? 0 : kept.findIndex(({ id }) => id === parent) + 1;
    await this.submit(turn, kept.slice(0, after), () =>
      call<Job>("POST", "/chat", {
        json: { session: this.id, message: question, parent, ...options.request() },
        prefer: "respond-async",
        headers: { "Idempotency-Key": turn.key },
      }));
  }

  /** Answers the question of a turn again. */
  async regenerate(turn: Turn): Promise<void> {
    if (turn.id === null) return this.ask(turn.question, turn.parent, turn.key);
    const again = new Turn(turn.question, turn.collection, turn.record.value?.parent ?? null);
    await this.submit(again, this.turns.value.slice(0, this.turns.value.indexOf(turn)), () =>
      call<Job>("POST", `${this.path}/turns/${turn.id}/regenerate`, {
        json: options.request({ again: true }),
        prefer: "respond-async",
        headers: { "Idempotency-Key": again.key },
      }));
  }

  /** Asks another question in place of the one of a turn. */
  edit(turn: Turn, question: string): Promise<void> {
    return this.ask(question, turn.id === null ? turn.parent : (turn.record.value?.parent ?? null));
  }

  private get lastId(): string | null {
    return this.turns.value.findLast(({ id }) => id !== null)?.id ?? null;
  }

  private async submit(turn: Turn, before: Turn[], send: () => Promise<Job>): Promise<void> {
    const shown = this.turns.value;
    this.returned.value = null;
    this.turns.value = [...before, turn];
    try {
      const job = await send();
      batch(() => {
        turn.id = job.id;
        turn.job.value = job;
        turn.state.value = job.status;
      });
      if (this.isNew) this.begin();
      void this.follow(turn);
      await this.load();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      batch(() => {
        turn.state.value = "failed";
        turn.error.value = error;
        // What was there before is there still.
        this.turns.value = [...shown.filter(({ id }) => id !== null), turn];
        this.returned.value = turn.question;
      });
    }
  }

  private begin(): void {
    this.isNew = false;
    conversations.set(this.id, this);
    if (fresh === this) fresh = null;
    const shown = location.pathname;
    if (shown === "/" || shown.startsWith("/ui/chat")) go(href("chat", this.id), { replace: true });
  }

  /** Shows another version of a turn, with the turns after it. */
  async choose(id: string): Promise<void> {
    this.show(await call<ChatTurns>("PATCH", this.path, { json: { current: id } }));
  }

  /** Shows an answer while it is written: its text from the events, its place in line from the job. */
  private async follow(turn: Turn): Promise<void> {
    turn.following = true;
    const ended = new AbortController();
    const { signal } = this.abort;
    void this.watchPosition(turn, AbortSignal.any([signal, ended.signal]));
    try {
      await this.readEvents(turn);
      turn.following = false;
      await this.lastWord(turn);
      this.announcement.value = turn.state.value === "completed" ? "The answer is complete." : "The answer has ended early.";
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      batch(() => {
        turn.state.value = "failed";
        turn.error.value = error;
      });
    } finally {
      turn.following = false;
      ended.abort();
    }
  }

  /** The turn as it has ended, in the session. */
  private async lastWord(turn: Turn): Promise<void> {
    for (;;) {
      try {
        const { session, data } = await call<ChatTurns>("GET", `${this.path}/turns?last=${turn.id}`, { signal: this.abort.signal });
        const record = data.at(-1)!;
        turn.update(record);
        if (!turn.running) {
          keepSession(session);
          return;
        }
      } catch (error) {
        if (!(error instanceof ApiError) || !error.temporary) throw error;
        turn.trouble.value = error.message;
      }
      await pause(1, this.abort.signal);
    }
  }

  private async readEvents(turn: Turn): Promise<void> {
    // Pieces that arrive within a frame are drawn together.
    let text = "";
    let reasoning = "";
    let frame = 0;
    const draw = () => {
      frame = 0;
      if (!turn.following) return;
      batch(() => {
        turn.text.value = text;
        turn.reasoning.value = reasoning;
      });
    };
    await followEvents(turn.id!, {
      signal: this.abort.signal,
      onTrouble: (error) => (turn.trouble.value = error && "The connection is interrupted. The answer goes on as soon as it is back."),
      onEvent: ({ type, data }) => {
        if (type === "restart") text = reasoning = "";
        if (type === "started" && turn.running) turn.state.value = "in_progress";
        if (type === "requeued" && turn.running) turn.state.value = "queued";
        text += data.text ?? "";
        reasoning += data.reasoning ?? "";
        frame ||= document.hidden ? (setTimeout(draw, 200) as unknown as number) : requestAnimationFrame(draw);
      },
    });
    draw();
  }

  private async watchPosition(turn: Turn, signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        if (!document.hidden && turn.text.value === "") {
          const job = await call<Job>("GET", `/jobs/${turn.id}`, { signal }).catch((error) => {
            if (error instanceof ApiError) return null;
            throw error;
          });
          if (job !== null && job.ended_at === null) turn.job.value = job;
        }
        await pause(POSITION_SECONDS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async stop(): Promise<void> {
    const turn = this.running;
    if (turn === null || turn.id === null) return;
    turn.stopping.value = true;
    try {
      await call("POST", `/jobs/${turn.id}/cancel`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // The job may have ended in the meantime, which its events tell.
      if (error.code !== "job_ended") {
        turn.stopping.value = false;
        throw error;
      }
    }
  }
}

const conversations = new Map<string, Conversation>();
let fresh: Conversation | null = null;
/** Changes when all chats are read again. */
const readings = signal(0);

/** The chat with this id, or a new one. */
export function conversation(id: string | undefined): Conversation {
  readings.value;
  if (id === undefined) return (fresh ??= new Conversation(null));
  let found = conversations.get(id);
  if (!found) conversations.set(id, (found = new Conversation(id)));
  return found;
}

/** The chat with this id, if it was shown. */
export const opened = (id: string): Conversation | undefined => conversations.get(id);

export function forget(id: string): void {
  conversations.get(id)?.close();
  conversations.delete(id);
}

let first = true;
identity.subscribe(() => {
  // The next user to sign in may be someone else, with other chats.
  if (!first) {
    for (const id of [...conversations.keys()]) forget(id);
    fresh?.close();
    fresh = null;
    if (!signedIn.value && segments.peek()[0] === "chat") go("/", { replace: true });
    readings.value += 1;
  }
  first = false;
});

// The server is back.
refreshes.subscribe((times) => {
  if (times > 0) for (const one of conversations.values()) if (one.problem.peek() !== null) void one.load();
});
