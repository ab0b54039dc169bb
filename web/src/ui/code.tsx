// A block of code with colours, once the highlighter is loaded.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { CopyButton } from "./basics.tsx";

interface TreeNode {
  type: string;
  value?: string;
  properties?: { className?: string[] };
  children?: TreeNode[];
}
type Highlighter = (language: string, code: string) => TreeNode | null;

const highlighter = signal<Highlighter | null>(null);
let loading = false;
// Colouring takes time in proportion to the code, at each piece of an answer.
const LONGEST = 30_000;

export function CodeBlock({ code, language }: { code: string; language: string }) {
  useEffect(() => {
    if (loading) return;
    loading = true;
    void import("./highlight.ts").then((loaded) => (highlighter.value = loaded.highlight));
  }, []);
  const tree = code.length < LONGEST ? highlighter.value?.(language.toLowerCase(), code) : null;
  return (
    <div class="code">
      <div class="code-head"><span>{language || "text"}</span><CopyButton text={code} label="Copy code" /></div>
      <pre tabIndex={0} role="region" aria-label="Code"><code>{tree ? nodes(tree.children) : code}</code></pre>
    </div>
  );
}

function nodes(children: TreeNode[] | undefined): ComponentChildren {
  return (children ?? []).map((node) => (node.type === "text" ? node.value : <span class={node.properties?.className?.join(" ")}>{nodes(node.children)}</span>));
}
