// The frame of the page: navigation, header, and the view that the address names.

import { useSignal } from "@preact/signals";
import type { IconNode } from "lucide";
import { Activity, FileText, Gauge, ListChecks, LogOut, MessageSquare, Search, Webhook as WebhookIcon } from "lucide";
import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { signedIn, signIn, useKey } from "./key.ts";
import { palette, Palette, ShortcutHelp, shortcutHelp } from "./palette.tsx";
import { later } from "./later.tsx";
import { href, segments } from "./router.ts";
import { attention, attentionKnown, health, me, placeOf, waitingFor } from "./store.ts";
import { Confirmation, Dialog, Icon, Toasts } from "./ui/basics.tsx";

export interface ViewEntry {
  name: string;
  title: string;
  icon: IconNode;
  view: ComponentType;
}

export const VIEWS: ViewEntry[] = [
  { name: "chat", title: "Chat", icon: MessageSquare, view: later(async () => (await import("./chat/view.tsx")).ChatView) },
  { name: "documents", title: "Documents", icon: FileText, view: later(async () => (await import("./documents/view.tsx")).DocumentsView) },
  { name: "jobs", title: "Jobs", icon: ListChecks, view: later(async () => (await import("./jobs/view.tsx")).JobsView) },
  { name: "operations", title: "Operations", icon: Activity, view: later(async () => (await import("./operations/view.tsx")).OperationsView) },
  { name: "usage", title: "Usage", icon: Gauge, view: later(async () => (await import("./usage/view.tsx")).UsageView) },
  { name: "webhooks", title: "Webhooks", icon: WebhookIcon, view: later(async () => (await import("./operations/webhooks.tsx")).WebhooksView) },
];

export const address = (name: string) => (name === "chat" ? "/" : href(name));

export function App() {
  const current = VIEWS.find(({ name }) => name === segments.value[0]) ?? VIEWS[0]!;
  useEffect(() => {
    document.title = `${current.title} · Enginehouse`;
  }, [current]);
  const offered = VIEWS.filter(({ name }) => name !== "operations" || me.value?.admin !== false);
  const View = current.view;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")!.focus(); }}>Skip to content</a>
      <nav class="rail" aria-label="Views">
        <a class="brand" href="/" aria-label="Enginehouse"><Mark /></a>
        {offered.map(({ name, title, icon }) => (
          <a key={name} href={address(name)} aria-current={name === current.name ? "page" : undefined}><Icon of={icon} size={20} /><span>{title}</span></a>
        ))}
      </nav>
      <header class="top">
        <p class="place">{current.title}</p>
        <button type="button" class="find" onClick={() => (palette.value = true)}><Icon of={Search} /><span>Go to or search</span><kbd aria-hidden="true">Ctrl K</kbd></button>
        <Lamp />
        <Account />
      </header>
      <main id="main" tabIndex={-1}><Outage /><View /></main>
      {palette.value && <Palette />}
      {shortcutHelp.value && <ShortcutHelp />}
      {signIn.value !== null && <SignIn />}
      <Confirmation />
      <Toasts />
    </>
  );
}

/** The same as mark.svg, without a request. */
function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0f766e" />
      <path d="M7 24V14.5L16 8l9 6.5V24h-5v-6h-8v6z" fill="#fff" />
      <circle cx="16" cy="14" r="2" fill="#0f766e" />
    </svg>
  );
}

/** Green only when nothing wants attention. */
function Lamp() {
  const open = useSignal(false);
  const things = attention.value;
  const state = signIn.value !== null ? "locked" : health.value !== "ready" ? health.value : things.length > 0 ? "attention" : attentionKnown.value ? "ready" : "unknown";
  const words = {
    locked: "Signed out", unknown: "Checking…", waiting: "Not ready", away: "Away", ready: "Ready",
    attention: things.length === 1 ? "1 needs attention" : `${things.length} need attention`,
  }[state];
  if (state !== "attention") return <p id="health" class="lamp" data-state={state}><span class="dot" aria-hidden="true" /><span>{words}</span></p>;
  return (
    <>
      <button id="health" type="button" class="lamp" data-state={state} aria-haspopup="dialog" onClick={() => (open.value = true)}><span class="dot" aria-hidden="true" /><span>{words}</span></button>
      {open.value && (
        <Dialog heading="What needs attention" onClose={() => (open.value = false)}>
          <ul class="plain-list">{things.map((thing) => <li key={thing.message}><a href={placeOf(thing)} onClick={() => (open.value = false)}>{thing.message}</a></li>)}</ul>
        </Dialog>
      )}
    </>
  );
}

function Outage() {
  if (health.value === "away") return <p class="banner" role="status">The server does not respond. This page goes on as soon as it does.</p>;
  if (health.value === "waiting" && signIn.value === null) return <p class="banner" role="status">The server waits for {waitingFor.value.join(", ")}. Questions are kept and answered later.</p>;
  return null;
}

function Account() {
  if (!signedIn.value) return null;
  return (
    <div class="account">
      {me.value && <span class="hint">{me.value.owner}{me.value.admin ? " (admin)" : ""}</span>}
      <button type="button" class="quiet" onClick={() => useKey(null)}><Icon of={LogOut} /><span>Sign out</span></button>
    </div>
  );
}

function SignIn() {
  const field = useRef<HTMLInputElement>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    const key = field.current!.value.trim();
    if (key) useKey(key);
  };
  useEffect(() => field.current!.focus(), []);
  return (
    <Dialog heading="Sign in" onClose={() => {}} class="sign-in">
      <form onSubmit={submit}>
        <p>{signIn.value === "unknown" ? "The server does not know this key, or it was revoked." : "This server asks for an API key."}</p>
        <label for="key">API key</label>
        <input ref={field} id="key" type="password" autocomplete="current-password" required placeholder="eh_…" />
        <p class="hint">Kept until you close the last tab of this page, and sent to this server only. <code>enginehouse keys create</code> makes one.</p>
        <div class="dialog-foot"><button type="submit" class="primary">Sign in</button></div>
      </form>
    </Dialog>
  );
}

