// A plain table, which is a list of cards on a phone.

import type { ComponentChildren } from "preact";

/** On a phone a row is a card: the first cell and the action in its first line, the others below, each with the words of its column. */
export type Column = [words: string, kind?: "right" | "action" | "spark" | "share"];
export interface Row {
  key: string;
  cells: ComponentChildren[];
}

export function Table({ label, columns, rows }: { label: string; columns: Column[]; rows: Row[] }) {
  const numeric = (kind: Column[1]) => (kind === "right" || kind === "action" ? "right" : undefined);
  return (
    <div class="table-card" tabIndex={0} role="group" aria-label={label}>
      <table class="plain-table stacked">
        <thead><tr>{columns.map(([words, kind]) => <th key={words} scope="col" class={numeric(kind)}>{kind === "action" ? <span class="unseen">{words}</span> : words}</th>)}</tr></thead>
        <tbody>{rows.map(({ key, cells: [first, ...others] }) => (
          <tr key={key}>
            <th scope="row">{first}</th>
            {others.map((cell, place) => {
              const [words, kind] = columns[place + 1]!;
              return <td key={words} class={[numeric(kind), kind && kind !== "right" ? `${kind}-cell` : null].filter(Boolean).join(" ") || undefined} data-label={kind === "action" ? undefined : words}>{cell}</td>;
            })}
          </tr>
        ))}</tbody>
      </table>
    </div>
  );
}
