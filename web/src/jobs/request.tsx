// What a job was asked to do.

import { href } from "../router.ts";
import { Markdown } from "../ui/markdown.tsx";
import { title } from "../words.ts";
import type { Request } from "./curl.ts";
import { Fact } from "./job.tsx";

export function RequestTab({ request }: { request: Request }) {
  const { messages, message, prompt, ...rest } = request;
  const others = Object.entries(rest).filter(([, value]) => value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0));
  return (
    <>
      {messages?.map(({ role, content }, place) => <Message key={place} by={title(role)} content={content} />)}
      {message && <Message by="Message" content={message} />}
      {prompt !== undefined && <div class="card message"><p class="hint">Prompt</p><pre class="plain-text">{asText(prompt)}</pre></div>}
      {others.length > 0 && <dl class="facts">{others.map(([word, value]) => <Fact key={word} name={title(word.replaceAll("_", " "))}>{word === "collection" ? <a href={href("documents", String(value))}>{String(value)}</a> : asText(value)}</Fact>)}</dl>}
    </>
  );
}

/** Parts of messages of /v1 may be objects. */
function Message({ by, content }: { by: string; content: unknown }) {
  return <div class="card message"><p class="hint">{by}</p>{typeof content === "string" ? <Markdown text={content} /> : <pre class="plain-text">{asText(content)}</pre>}</div>;
}

/** A value as a person reads it; the fields of an object without those that are not set. */
function asText(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "object" || value === null || Array.isArray(value)) return JSON.stringify(value);
  const fields = Object.entries(value).filter(([, one]) => one !== null);
  return fields.map(([name, one]) => `${name.replaceAll("_", " ")}: ${asText(one)}`).join(", ");
}
