// A formula, as MathML, which browsers draw without a style sheet and fonts. KaTeX is loaded with the first one.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

type Katex = typeof import("katex").default;
const katex = signal<Katex | null>(null);
let loading = false;

export function Maths({ text, block = false }: { text: string; block?: boolean }) {
  const place = useRef<HTMLSpanElement>(null);
  const loaded = katex.value;
  useEffect(() => {
    if (!loading) {
      loading = true;
      void import("katex").then((module) => (katex.value = module.default));
    }
    if (loaded === null || place.current === null) return;
    try {
      loaded.render(text, place.current, { output: "mathml", displayMode: block, throwOnError: true, trust: false, maxExpand: 200 });
    } catch {
      place.current.textContent = text;
    }
  }, [text, loaded]);
  return <span ref={place} class={block ? "maths-block" : "maths"}>{loaded === null ? text : null}</span>;
}
