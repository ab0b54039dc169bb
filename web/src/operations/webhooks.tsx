// Webhooks: those that are registered, how their deliveries fare, and the deliveries that failed.

import { useSignal } from "@preact/signals";
import { Plus, Trash2 } from "lucide";
import { useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { Deliveries } from "../jobs/deliveries.tsx";
import { useResource } from "../resource.ts";
import "../start.tsx";
import { lookForAttention } from "../store.ts";
import type { Delivery, List, Webhook } from "../types.ts";
import { attempt, confirmed, CopyButton, Dialog, Empty, Icon, now, Problem, toast } from "../ui/basics.tsx";
import { count, number, problem } from "../words.ts";
import { hasFailed, hookEvents, hookState, type HookHealth, worstFirst } from "./hooks.ts";

const LOOK_SECONDS = 5;
const SHOWN_FAILURES = 5;

export function WebhooksView() {
  const hooks = useResource("webhooks", async (abort) => (await call<List<Webhook>>("GET", "/webhooks", { signal: abort })).data, LOOK_SECONDS);
  const deliveries = useResource("deliveries", async (abort) => (await call<List<Delivery>>("GET", "/deliveries?limit=100", { signal: abort })).data, LOOK_SECONDS);
  const creating = useSignal(false);
  const secret = useSignal<string | null>(null);
  const list = hooks.data.value;
  const recent = deliveries.data.value ?? [];
  const failed = recent.filter(hasFailed);
  return (
    <section class="view" aria-label="Webhooks">
      <div class="view-head"><h1>Webhooks</h1><button type="button" class="primary" disabled={list === null} onClick={() => (creating.value = true)}><Icon of={Plus} />New webhook</button></div>
      <Problem error={hooks.error.value} />
      {list !== null && list.length === 0 && <Empty><h2>No webhook yet</h2><p>A webhook tells an address of yours when jobs end, so that nothing has to poll. A single job can have one of its own: see <a href="/docs">the reference</a>.</p></Empty>}
      {list !== null && list.length > 0 && (
        <div class="cards">{worstFirst(list, recent).map((one) => <HookCard key={one.hook.id} of={one} onChange={() => { hooks.reload(); void lookForAttention(); }} onSecret={(text) => (secret.value = text)} />)}</div>
      )}
      {failed.length > 0 && <section class="section" aria-labelledby="failed-heading"><h2 id="failed-heading">Deliveries that did not arrive</h2>{byAddress(failed).map(([url, some]) => <FailedDeliveries key={url} url={url} deliveries={some} onSent={deliveries.reload} />)}</section>}
      {creating.value && <HookDialog onClose={() => (creating.value = false)} onCreated={(text) => { creating.value = false; secret.value = text; hooks.reload(); }} />}
      {secret.value && (
        <Dialog heading="Secret of the webhook" onClose={() => (secret.value = null)}>
          <p>It signs the deliveries, and is shown only now.</p>
          <div class="curl"><pre>{secret.value}</pre><CopyButton text={secret.value} label="Copy the secret" /></div>
        </Dialog>
      )}
    </section>
  );
}

/** Deliveries by where they go to, so that each line need not say it. */
function byAddress(deliveries: Delivery[]): [string, Delivery[]][] {
  const groups = new Map<string, Delivery[]>();
  for (const one of deliveries) groups.set(one.url, [...(groups.get(one.url) ?? []), one]);
  return [...groups];
}

function FailedDeliveries({ url, deliveries, onSent }: { url: string; deliveries: Delivery[]; onSent: () => void }) {
  const all = useSignal(false);
  const shown = all.value ? deliveries : deliveries.slice(0, SHOWN_FAILURES);
  return (
    <div class="delivery-group">
      <h3>{url} <span class="hint">{count(deliveries.length, "delivery", "deliveries")}</span></h3>
      <Deliveries label={`Failed deliveries to ${url}`} deliveries={shown} onSent={onSent} />
      {shown.length < deliveries.length && <button type="button" class="small quiet" onClick={() => (all.value = true)}>Show all {number(deliveries.length)}</button>}
    </div>
  );
}

function HookCard({ of: health, onChange, onSecret }: { of: HookHealth; onChange: () => void; onSecret: (text: string) => void }) {
  const { hook, all, good } = health;
  const state = hookState(health, now.value);
  const path = `/webhooks/${hook.id}`;
  const enable = (enabled: boolean) => attempt(() => call("PATCH", path, { json: { enabled } }).then(onChange));
  const rotate = () => attempt(async () => onSecret((await call("POST", `${path}/rotate`)).secret));
  const remove = async () => {
    if (await confirmed(`Delete the webhook ${hook.url}? Its pending deliveries end as failed.`, "Delete")) await attempt(() => call("DELETE", path).then(() => { toast("The webhook is deleted."); onChange(); }));
  };
  return (
    <article class="card" aria-label={hook.url}>
      <header><h2>{hook.description || hook.url}</h2><span class="state" data-state={state.amiss ? "failed" : "completed"}>{state.words}</span></header>
      {hook.description && <p class="hint">{hook.url}</p>}
      {hook.disabled_reason && <p class="notice bad">{hook.disabled_reason}</p>}
      <div class="meters"><div><div><span>Recent deliveries</span><span class={all > 0 && good === 0 ? "number amiss" : "number"}>{all === 0 ? "none" : `${number(good)} of ${number(all)} arrived`}</span></div>
        {all > 0 && <div class="meter" data-level={good === all ? undefined : good === 0 ? "critical" : "warning"} role="img" aria-label={`${good} of ${count(all, "delivery", "deliveries")} arrived`}><span style={{ width: `${(good / all) * 100}%` }} /></div>}</div></div>
      <p class="hint">{hookEvents(hook)}</p>
      <div class="bar">
        <button type="button" class="small" onClick={() => enable(!hook.enabled)}>{hook.enabled ? "Disable" : "Enable"}</button>
        <button type="button" class="small" onClick={rotate}>New secret</button>
        <button type="button" class="small danger spread" aria-label={`Delete ${hook.url}`} onClick={remove}><Icon of={Trash2} size={14} />Delete</button>
      </div>
    </article>
  );
}

function HookDialog({ onClose, onCreated }: { onClose: () => void; onCreated: (secret: string) => void }) {
  const form = useRef<HTMLFormElement>(null);
  const error = useSignal<string | null>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const data = new FormData(form.current!);
    try {
      onCreated((await call("POST", "/webhooks", { json: { url: String(data.get("url")).trim(), description: String(data.get("description")).trim() } })).secret);
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      error.value = problem(caught);
    }
  };
  return (
    <Dialog heading="New webhook" onClose={onClose}>
      <form ref={form} onSubmit={submit} noValidate>
        <label for="hook-url">Address</label><input id="hook-url" name="url" type="url" autoFocus placeholder="https://example.com/hooks" required />
        <label for="hook-description">Description</label><input id="hook-description" name="description" maxLength={200} />
        {error.value && <p class="notice bad" role="alert">{error.value}</p>}
        <div class="dialog-foot"><button type="submit" class="primary">Create</button></div>
      </form>
    </Dialog>
  );
}
