// One chat and its turns. It lives outside of the view, so that an answer goes on while another view is shown.

import { batch, signal } from "@preact/signals";
import { ApiError, call, followEvents, pause } from "../api.ts";
import { identity } from "../key.ts";
import { go, href } from "../router.ts";
import type { Job } from "../types.ts";
import { options } from "./options.ts";
import { findSession, keepSession, titleOf } from "./sessions.ts";

export type TurnState = "sending" | "queued" | "in_progress" | "completed" | "failed" | "cancelled" | "expired";

const POSITION_SECONDS = 2;

export class Turn {
  readonly state = signal<TurnState>("sending");
  readonly text = signal("");
  readonly reasoning = signal("");
  readonly job = signal<Job | null>(null);
  readonly error = signal<{ code: string; message: string } | null>(null);
  readonly trouble = signal<string | null>(null);
  readonly stopping = signal(false);
  id: string | null = null;

  readonly question: string;
  readonly collection: string | null;

  constructor(question: string, collection: string | null) {
    this.question = question;
    this.collection = collection;
  }

  get running(): boolean {
    return ["sending", "queued", "in_progress"].includes(this.state.value);
  }
}

export class Conversation {
  readonly turns = signal<Turn[]>([]);
  readonly loading = signal(false);
  readonly problem = signal<ApiError | null>(null);
  /** The words of the end of the last answer, for screen readers. */
  readonly announcement = signal("");
  id: string | null;
  private readonly abort = new AbortController();

  constructor(id: string | null) {
    this.id = id;
    if (id !== null) void this.load(id);
  }

  get running(): Turn | null {
    const last = this.turns.value.at(-1);
    return last?.running ? last : null;
  }

  close(): void {
    this.abort.abort();
  }

  private async load(id: string): Promise<void> {
    this.loading.value = true;
    try {
      const history = await call("GET", `/chat/history/${encodeURIComponent(id)}`).catch((error) => {
        if (error.code !== "session_not_found") throw error;
        return { messages: [] };
      });
      const kept = findSession(id)?.turns ?? [];
      const jobs = await Promise.all(kept.map(({ job }) => (job === null ? null : findJob(job))));
      this.turns.value = this.merge(history.messages, kept, jobs);
      this.problem.value = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.value = error;
    } finally {
      this.loading.value = false;
    }
  }

  /** The turns of the history, and between them those of this browser that have no answer there. */
  private merge(messages: { role: string; content: string }[], kept: { question: string; job: string | null; collection: string | null }[], jobs: (Job | null)[]): Turn[] {
    const turns: Turn[] = [];
    let next = 0;
    const fromHistory = () => {
      const turn = new Turn(messages[next]!.content, null);
      turn.text.value = messages[next + 1]?.content ?? "";
      turn.state.value = "completed";
      next += 2;
      return turn;
    };
    kept.forEach(({ question, job: id, collection }, place) => {
      const job = jobs[place] ?? null;
      const turn = new Turn(question, collection);
      turn.id = id;
      if (job?.status === "completed" || job === null) {
        while (next < messages.length && messages[next]!.content !== question) turns.push(fromHistory());
        if (next < messages.length) {
          const answered = fromHistory();
          turn.text.value = answered.text.value;
          turn.state.value = "completed";
          if (job !== null) this.settle(turn, job);
        } else if (job !== null) {
          this.settle(turn, job);
        } else {
          turn.state.value = "failed";
          turn.error.value = { code: "job_not_found", message: "The server no longer has this answer." };
        }
      } else if (job.ended_at !== null) {
        this.settle(turn, job);
        // What was written before the end is only in the events.
        void this.replay(turn, job.id);
      } else {
        turn.job.value = job;
        turn.state.value = job.status;
        void this.follow(turn, job.id);
      }
      turns.push(turn);
    });
    while (next < messages.length) turns.push(fromHistory());
    return turns;
  }

  async ask(question: string): Promise<void> {
    const turn = new Turn(question, options.collection.value || null);
    this.turns.value = [...this.turns.value, turn];
    try {
      if (this.id === null) await this.begin();
      const job = await this.submit(turn).catch(async (error) => {
        if (error.code !== "session_not_found") throw error;
        await this.begin();
        return this.submit(turn);
      });
      batch(() => {
        turn.id = job.id;
        turn.job.value = job;
        turn.state.value = job.status;
      });
      this.keep();
      await this.follow(turn, job.id);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      batch(() => {
        turn.state.value = "failed";
        turn.error.value = error;
      });
      if (this.id !== null) this.keep();
    }
  }

  private async begin(): Promise<void> {
    const { sessionId } = await call("POST", "/chat/start", { json: {} });
    this.id = sessionId;
    conversations.set(sessionId, this);
    if (fresh === this) fresh = null;
    this.keep();
    const shown = location.pathname;
    if (shown === "/" || shown.startsWith("/ui/chat")) go(href("chat", sessionId), { replace: true });
  }

  private submit(turn: Turn): Promise<Job> {
    return call<Job>("POST", "/chat/message", {
      json: { sessionId: this.id, message: turn.question, priority: "interactive", ...options.request() },
      prefer: "respond-async",
      // An answer that got lost on the way must not become a second question.
      headers: { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` },
    });
  }

  private keep(): void {
    const id = this.id!;
    const turns = this.turns.value.map(({ question, id: job, collection }) => ({ question, job, collection }));
    const title = findSession(id)?.title;
    keepSession(id, { turns, title: title && title !== "New chat" ? title : titleOf(turns[0]?.question ?? "") });
  }

  /** Shows an answer while it is written: its text from the events, its place in line from the job. */
  private async follow(turn: Turn, id: string): Promise<void> {
    const ended = new AbortController();
    const { signal } = this.abort;
    void this.watchPosition(turn, id, AbortSignal.any([signal, ended.signal]));
    try {
      await this.readEvents(turn, id);
      const job = await this.lastWord(id, turn);
      this.settle(turn, job);
      this.announcement.value = turn.state.value === "completed" ? "The answer is complete." : "The answer has ended early.";
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      batch(() => {
        turn.state.value = "failed";
        turn.error.value = error;
      });
    } finally {
      ended.abort();
    }
  }

  private async lastWord(id: string, turn: Turn): Promise<Job> {
    for (;;) {
      try {
        const job = await call<Job>("GET", `/jobs/${id}?wait=10`, { signal: this.abort.signal });
        if (job.ended_at !== null) return job;
      } catch (error) {
        if (!(error instanceof ApiError) || !error.temporary) throw error;
        turn.trouble.value = error.message;
      }
      await pause(1, this.abort.signal);
    }
  }

  private async readEvents(turn: Turn, id: string): Promise<void> {
    // Pieces that arrive within a frame are drawn together.
    let text = "";
    let reasoning = "";
    let frame = 0;
    const draw = () => {
      frame = 0;
      batch(() => {
        turn.text.value = text;
        turn.reasoning.value = reasoning;
      });
    };
    await followEvents(id, {
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

  private async replay(turn: Turn, id: string): Promise<void> {
    try {
      await this.readEvents(turn, id);
    } catch (error) {
      if (!(error instanceof ApiError) && !this.abort.signal.aborted) throw error;
    }
  }

  private async watchPosition(turn: Turn, id: string, signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        if (!document.hidden && turn.text.value === "") {
          const job = await call<Job>("GET", `/jobs/${id}`, { signal }).catch((error) => {
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

  private settle(turn: Turn, job: Job): void {
    batch(() => {
      turn.job.value = job;
      turn.state.value = job.status;
      turn.stopping.value = false;
      turn.trouble.value = null;
      const result = job.result as { text?: string; reasoning?: string } | null;
      if (result?.text !== undefined) turn.text.value = result.text;
      if (result?.reasoning !== undefined) turn.reasoning.value = result.reasoning;
      if (job.status === "failed") turn.error.value = job.error;
      if (job.status === "expired") turn.error.value = { code: "expired", message: "The question waited too long and has expired." };
    });
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

  /** Takes a turn without an answer away, to ask it again. */
  drop(turn: Turn): void {
    this.turns.value = this.turns.value.filter((one) => one !== turn);
  }

  markdown(): string {
    return this.turns.value.map((turn) => `## ${turn.question}\n\n${turn.text.value}\n`).join("\n");
  }
}

const conversations = new Map<string, Conversation>();
let fresh: Conversation | null = null;

/** The chat with this id, or a new one. */
export function conversation(id: string | undefined): Conversation {
  if (id === undefined) return (fresh ??= new Conversation(null));
  let found = conversations.get(id);
  if (!found) conversations.set(id, (found = new Conversation(id)));
  return found;
}

export function forget(id: string): void {
  conversations.get(id)?.close();
  conversations.delete(id);
}

let first = true;
identity.subscribe(() => {
  // Another key has other chats, and one that could not be read may be readable now.
  if (!first) {
    for (const [id, one] of conversations) if (one.problem.peek() !== null) forget(id);
  }
  first = false;
});

async function findJob(id: string): Promise<Job | null> {
  try {
    return await call<Job>("GET", `/jobs/${id}`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}
