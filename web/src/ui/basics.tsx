// Small parts that every view uses.

import { signal, useSignal } from "@preact/signals";
import type { IconNode } from "lucide";
import { Check, CircleAlert, CircleX, Clock, Copy, Hourglass, LoaderCircle, X, Ban } from "lucide";
import type { ButtonHTMLAttributes, ComponentChildren } from "preact";
import { h } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { ApiError } from "../api.ts";
import { ago, documentStatus, fullTime, isAmiss, isUnfinished, jobStatus, problem } from "../words.ts";

export function Icon({ of, size = 16 }: { of: IconNode; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      {of.map(([tag, attributes], place) => h(tag, { ...attributes, key: place } as any))}
    </svg>
  );
}

export function IconButton({ icon, label, class: kind = "", ...rest }: { icon: IconNode; label: string } & Omit<ButtonHTMLAttributes, "icon">) {
  return <button type="button" class={`icon-button ${kind}`} aria-label={label} title={label} {...rest}><Icon of={icon} /></button>;
}

/** The current time, which moves on every half minute while the page is visible. */
export const now = signal(Date.now() / 1000);
setInterval(() => {
  if (!document.hidden) now.value = Date.now() / 1000;
}, 20_000);

export function Time({ at }: { at: number | null | undefined }) {
  if (at === null || at === undefined) return null;
  return <time dateTime={new Date(at * 1000).toISOString()} title={fullTime(at)}>{ago(at, Math.max(now.value, at))}</time>;
}

/** A notice where something is wrong. One fact is told once: without a connection or a key, the header tells it. */
export function Problem({ error, children }: { error: ApiError | null | string; children?: ComponentChildren }) {
  if (error === null) return null;
  if (error instanceof ApiError && (error.status === 0 || error.status === 401)) return null;
  return <p class="notice bad" role="alert">{typeof error === "string" ? error : problem(error)} {children}</p>;
}

const JOB_ICONS: Record<string, IconNode> = {
  queued: Clock, in_progress: LoaderCircle, completed: Check, failed: CircleX, cancelled: Ban, expired: Hourglass,
};

export function JobState({ status, cancelling = false }: { status: string; cancelling?: boolean }) {
  return <span class="state" data-state={status}><Icon of={JOB_ICONS[status] ?? Clock} size={14} />{cancelling ? "Stopping" : jobStatus(status)}</span>;
}

export function DocumentState({ status }: { status: string }) {
  const state = status === "ready" ? "completed" : isAmiss(status) ? "failed" : status === "uploaded" ? "queued" : isUnfinished(status) ? "in_progress" : "cancelled";
  const icon = state === "failed" ? CircleAlert : JOB_ICONS[state]!;
  return <span class="state" data-state={state}><Icon of={icon} size={14} />{documentStatus(status)}</span>;
}

export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS there is no clipboard API.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

export function CopyButton({ text, label = "Copy", icon = true }: { text: string | (() => string); label?: string; icon?: boolean }) {
  const copied = useSignal(false);
  const copy = async () => {
    await copyText(typeof text === "string" ? text : text());
    copied.value = true;
    setTimeout(() => (copied.value = false), 1500);
  };
  return icon
    ? <IconButton icon={copied.value ? Check : Copy} label={copied.value ? "Copied" : label} onClick={copy} />
    : <button type="button" onClick={copy}><Icon of={copied.value ? Check : Copy} />{copied.value ? "Copied" : label}</button>;
}

/** A modal dialog; Escape and a click beside it close it. */
export function Dialog({ heading, onClose, children, class: kind = "" }: { heading: string; onClose: () => void; children: ComponentChildren; class?: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  // Before the effects of its content, which may focus a field: a closed dialog refuses that, and one that opens focuses its first button.
  useLayoutEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current!.showModal();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog ref={dialog} class={`dialog ${kind}`} aria-label={heading}
      onCancel={(event) => { event.preventDefault(); onClose(); }}
      onMouseDown={(event) => event.target === event.currentTarget && onClose()}>
      <div class="dialog-head"><h2>{heading}</h2><IconButton icon={X} label="Close" onClick={onClose} /></div>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}

/** A sheet at the right, beside the view; on a phone it covers the view. */
export function Sheet({ heading, onClose, children, actions, wide = false }: { heading: ComponentChildren; onClose: () => void; children: ComponentChildren; actions?: ComponentChildren; wide?: boolean }) {
  const sheet = useRef<HTMLElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    sheet.current!.focus();
    const key = (event: KeyboardEvent) => event.key === "Escape" && !document.querySelector("dialog[open]") && onClose();
    document.addEventListener("keydown", key);
    return () => {
      document.removeEventListener("keydown", key);
      before?.focus?.();
    };
  }, []);
  return (
    <aside ref={sheet} class={wide ? "sheet wide" : "sheet"} tabIndex={-1} aria-label="Details">
      <header class="sheet-head"><h2>{heading}</h2>{actions}<IconButton icon={X} label="Close details" onClick={onClose} /></header>
      <div class="sheet-body" tabIndex={0} role="region" aria-label="Content of the details">{children}</div>
    </aside>
  );
}

interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
  bad?: boolean;
}
const toasts = signal<Toast[]>([]);
let lastToast = 0;

/** Tells the outcome of an action for a while, with one that takes it back. */
export function toast(text: string, { action, seconds = action ? 10 : 5, bad = false }: { action?: Toast["action"]; seconds?: number; bad?: boolean } = {}): void {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-2), { id, text, action, bad }];
  setTimeout(() => dismiss(id), seconds * 1000);
}
const dismiss = (id: number) => (toasts.value = toasts.value.filter((one) => one.id !== id));

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, action, bad }) => (
        <div key={id} class={bad ? "toast bad" : "toast"}>
          <span>{text}</span>
          {action && <button type="button" class="small" onClick={() => { dismiss(id); action.run(); }}>{action.label}</button>}
          <IconButton icon={X} label="Dismiss" onClick={() => dismiss(id)} />
        </div>
      ))}
    </div>
  );
}

/** Runs an action and tells its error. Returns whether it succeeded. */
export async function attempt(action: () => Promise<unknown>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(problem(error), { bad: true });
    return false;
  }
}

const question = signal<null | { text: string; action: string; resolve: (yes: boolean) => void }>(null);

/** Asks before something that cannot be taken back. */
export function confirmed(text: string, action: string): Promise<boolean> {
  return new Promise((resolve) => (question.value = { text, action, resolve }));
}

export function Confirmation() {
  if (question.value === null) return null;
  const { text, action, resolve } = question.value;
  const end = (yes: boolean) => {
    question.value = null;
    resolve(yes);
  };
  return (
    <Dialog heading={action} onClose={() => end(false)}>
      <p>{text}</p>
      <div class="dialog-foot">
        <button type="button" autoFocus onClick={() => end(false)}>Keep</button>
        <button type="button" class="danger-fill" onClick={() => end(true)}>{action}</button>
      </div>
    </Dialog>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

export function Tabs({ tabs, current, onChoose, label }: { tabs: [string, string][]; current: string; onChoose: (name: string) => void; label: string }) {
  const move = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    const place = tabs.findIndex(([name]) => name === current);
    const next = tabs[(place + step + tabs.length) % tabs.length]![0];
    onChoose(next);
    (event.currentTarget as HTMLElement).querySelector<HTMLElement>(`[data-tab="${next}"]`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={move}>
      {tabs.map(([name, text]) => (
        <button key={name} type="button" role="tab" data-tab={name} aria-selected={name === current} tabIndex={name === current ? 0 : -1} onClick={() => onChoose(name)}>{text}</button>
      ))}
    </div>
  );
}
