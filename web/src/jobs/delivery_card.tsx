// A delivery of a webhook with its tries.

import { call } from "../api.ts";
import type { Delivery } from "../types.ts";
import { attempt, Time, toast } from "../ui/basics.tsx";
import { count, duration, readable, title } from "../words.ts";

export function DeliveryCard({ delivery, onSent }: { delivery: Delivery; onSent: () => void }) {
  const again = () => attempt(async () => {
    await call("POST", `/deliveries/${delivery.id}/redeliver`, { json: {} });
    toast("It is sent again.");
    onSent();
  });
  const state = delivery.status === "delivered" ? "completed" : delivery.status === "failed" ? "failed" : "queued";
  return (
    <article class="card message">
      <div class="bar"><JobStateWords state={state} words={title(delivery.status)} /><strong>{delivery.event}</strong><span class="hint">{delivery.url}</span><button type="button" class="small spread" onClick={again}>Redeliver</button></div>
      {delivery.reason && <p class="notice bad">{readable(delivery.reason)}</p>}
      {delivery.attempts.slice(-1).map((one) => <Try key={one.number} attempt={one} />)}
      {delivery.attempts.length > 1 && <details class="deliveries hint"><summary>{count(delivery.attempts.length - 1, "earlier try", "earlier tries")}</summary>{delivery.attempts.slice(0, -1).reverse().map((one) => <Try key={one.number} attempt={one} />)}</details>}
      {delivery.status === "pending" && delivery.next_attempt_at !== null && <p class="hint">Next try {delivery.next_attempt_at > Date.now() / 1000 ? `in ${duration(delivery.next_attempt_at - Date.now() / 1000)}` : "now"}.</p>}
    </article>
  );
}

function Try({ attempt: one }: { attempt: Delivery["attempts"][number] }) {
  return (
    <div class="try"><p>Try {one.number}: {one.status ?? one.error ?? one.outcome ?? "on its way"}{one.latency ? ` after ${duration(one.latency)}` : ""} <span class="hint"><Time at={one.started_at} /></span></p>{one.answer && <pre class="raw">{one.answer}</pre>}</div>
  );
}

function JobStateWords({ state, words }: { state: string; words: string }) {
  return <span class="state" data-state={state}>{words}</span>;
}
