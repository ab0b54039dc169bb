// Markdown as nodes: marked splits the text into tokens, and each token becomes an element. Markup in the text stays text, and
// nothing is loaded: an image is shown as a link.

import { lexer, use, type Token, type Tokens } from "marked";
import type { ComponentChildren, VNode } from "preact";
import { memo } from "./memo.ts";
import { CodeBlock } from "./code.tsx";
import { Maths } from "./maths.tsx";

// A text of this length is shown as it is: splitting it would block the page.
const LONGEST = 300_000;
const LONGEST_LINE = 20_000;

use({
  extensions: [
    {
      name: "mathsBlock",
      level: "block",
      start: (text) => text.match(/\$\$|\\\[/)?.index,
      tokenizer(text) {
        const match = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/.exec(text);
        return match ? { type: "mathsBlock", raw: match[0], text: (match[1] ?? match[2])!.trim() } : undefined;
      },
    },
    {
      name: "maths",
      level: "inline",
      start: (text) => text.match(/\$|\\\(/)?.index,
      tokenizer(text) {
        // A dollar sign before a digit is mostly money: a formula in dollar signs has no space at its ends and no digit after it.
        const match = /^(?:\\\(([^\n]+?)\\\)|\$\$([^\n$]+?)\$\$|\$(?!\s)([^\n$]*?[^\s$\\])\$(?!\d))/.exec(text);
        return match ? { type: "maths", raw: match[0], text: (match[1] ?? match[2] ?? match[3])! } : undefined;
      },
    },
  ],
});

/** What a link of a model may open. */
export function safeLink(address: string): string | null {
  try {
    const url = new URL(address);
    return ["https:", "http:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

export type CiteMarker = (marker: string) => VNode | null;

function tooLong(text: string): boolean {
  if (text.length > LONGEST) return true;
  for (let start = 0; start < text.length; ) {
    const end = text.indexOf("\n", start);
    const stop = end < 0 ? text.length : end;
    if (stop - start > LONGEST_LINE) return true;
    start = stop + 1;
  }
  return false;
}

export function Markdown({ text, cite }: { text: string; cite?: CiteMarker }) {
  if (tooLong(text)) return <pre class="plain-text">{text}</pre>;
  const tokens = lexer(text);
  setLevels(tokens);
  return <div class="prose">{tokens.map((token, place) => <Block key={place} raw={token.raw} token={token} cite={cite} />)}</div>;
}

/** The headings of a text are below those of the page, and none skips a level, whatever the model wrote. */
function setLevels(tokens: Token[]): void {
  let above = 1;
  for (const token of tokens) {
    if (token.type === "heading") above = (token as Tokens.Heading & { level: number }).level = Math.min(6, token["depth"] + 1, above + 1);
  }
}

// While an answer is written only its last block changes: the others are compared by their source.
const Block = memo(
  ({ token, cite }: { raw: string; token: Token; cite?: CiteMarker }) => <>{block(token, cite)}</>,
  (before, after) => before.raw === after.raw && before.cite === after.cite && before.token.type === after.token.type,
);

const blocks = (tokens: Token[] | undefined, cite?: CiteMarker): ComponentChildren => (tokens ?? []).map((token) => block(token, cite));

function block(token: Token, cite?: CiteMarker): ComponentChildren {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      // One in a list or a quotation is no part of the outline.
      if (!("level" in token)) return <p><strong>{inline(token.tokens, cite)}</strong></p>;
      const Heading = `h${token["level"]}` as "h3";
      return <Heading data-depth={token.depth}>{inline(token.tokens, cite)}</Heading>;
    }
    case "paragraph":
      return <p>{inline(token.tokens, cite)}</p>;
    case "text":
      return token.tokens ? inline(token.tokens, cite) : unescape(token.text);
    case "code":
      return <CodeBlock code={token.text} language={(token.lang ?? "").split(/\s/)[0]!} />;
    case "blockquote":
      return <blockquote>{blocks(token.tokens, cite)}</blockquote>;
    case "list":
      return list(token as Tokens.List, cite);
    case "table":
      return table(token as Tokens.Table, cite);
    case "hr":
      return <hr />;
    case "mathsBlock":
      return <Maths text={token.text} block />;
    case "html":
      return <p>{token.raw}</p>;
    default:
      return <p>{token.raw}</p>;
  }
}

function list({ ordered, start, items }: Tokens.List, cite?: CiteMarker) {
  const entries = items.map((item) => (
    <li class={item.task ? "task" : undefined}>
      {item.task && <span class="task-mark" role="img" aria-label={item.checked ? "Done" : "Open"}>{item.checked ? "☑" : "☐"} </span>}
      {item.tokens.filter((token) => token.type !== "checkbox").map((token) => block(token, cite))}
    </li>
  ));
  if (!ordered) return <ul>{entries}</ul>;
  return typeof start === "number" && start !== 1 ? <ol start={start}>{entries}</ol> : <ol>{entries}</ol>;
}

function table({ header, rows, align }: Tokens.Table, cite?: CiteMarker) {
  return (
    <div class="table-scroll" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead><tr>{header.map((cell, place) => <th scope="col" data-align={align[place]}>{inline(cell.tokens, cite)}</th>)}</tr></thead>
        <tbody>{rows.map((row) => <tr>{row.map((cell, place) => <td data-align={align[place]}>{inline(cell.tokens, cite)}</td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

function inline(tokens: Token[] | undefined, cite?: CiteMarker): ComponentChildren {
  return (tokens ?? []).map((token) => {
    switch (token.type) {
      case "strong":
        return <strong>{inline(token.tokens, cite)}</strong>;
      case "em":
        return <em>{inline(token.tokens, cite)}</em>;
      case "del":
        return <del>{inline(token.tokens, cite)}</del>;
      case "codespan":
        return <code>{unescape(token.text)}</code>;
      case "br":
        return <br />;
      case "maths":
        return <Maths text={token.text} />;
      case "escape":
        return token.text;
      case "image":
      case "link": {
        const address = safeLink(token.href);
        const words = token.type === "image" ? token.text || token.href : inline(token.tokens, cite);
        if (address === null) return token.type === "image" ? token.raw : <>{words}</>;
        return <a href={address} target="_blank" rel="noopener noreferrer nofollow">{words}</a>;
      }
      case "text":
        return token.tokens ? inline(token.tokens, cite) : markers(unescape(token.text), cite);
      default:
        return token.raw;
    }
  });
}

/** A text in which markers such as [1] become references. */
function markers(text: string, cite?: CiteMarker): ComponentChildren {
  if (!cite || !text.includes("[")) return text;
  return text.split(/(\[\d+\])/).map((part) => (/^\[\d+\]$/.test(part) ? (cite(part) ?? part) : part));
}

const ENTITIES: Record<string, string> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };

/** marked escapes some of its texts for HTML, which is not wanted in text nodes. */
function unescape(text: string): string {
  return text.includes("&") ? text.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity]!) : text;
}
