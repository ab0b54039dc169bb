// A small line of numbers over time, with the value and the time at the pointer or, by the arrow keys, at any place.

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { clockTime } from "../words.ts";
import { sparkPaths } from "./spark_paths.ts";

interface Props {
  values: (number | null)[];
  label: string;
  /** When the first interval began, and how long each is, in seconds. */
  start: number;
  seconds: number;
  say?: (value: number) => string;
  colour?: string;
}

const PAGE_STEPS = 10;

export function Spark({ values, label, start, seconds, say = String, colour = "--chart-write" }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const chosen = useSignal<number | null>(null);
  const last = values.length - 1;
  const { line, area, dots, width, height } = sparkPaths(values);
  const at = chosen.value === null ? null : Math.min(chosen.value, last);
  const words = (index: number) => `${values[index] == null ? "nothing recorded" : say(values[index]!)}, ${clockTime(start + index * seconds, seconds < 60)}`;
  const point = (event: PointerEvent) => {
    const { left, width } = place.current!.getBoundingClientRect();
    chosen.value = Math.max(0, Math.min(last, Math.round(((event.clientX - left) / Math.max(1, width)) * last)));
  };
  const key = (event: KeyboardEvent) => {
    const now = at ?? last;
    const steps: Record<string, number> = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageDown: now - PAGE_STEPS, PageUp: now + PAGE_STEPS, Home: 0, End: last };
    if (!(event.key in steps)) return;
    event.preventDefault();
    chosen.value = Math.max(0, Math.min(last, steps[event.key]!));
  };
  const hide = () => (chosen.value = null);
  return (
    <div class="spark-box" role="slider" tabIndex={0} aria-readonly="true" aria-label={label} aria-valuemin={0} aria-valuemax={Math.max(0, last)} aria-valuenow={at ?? last} aria-valuetext={last < 0 ? "nothing recorded" : words(at ?? last)}
      onPointerMove={point} onPointerDown={point} onPointerLeave={hide} onKeyDown={key} onFocus={(event) => { if (event.currentTarget.matches(":focus-visible")) chosen.value = last; }} onBlur={hide}>
      <div ref={place} class="spark" style={{ color: `var(${colour})` }}>
        <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
          <path class="spark-area" d={area} /><path class="spark-path" d={line} /><path class="spark-dots" d={dots} />
        </svg>
      </div>
      {at !== null && (
        <>
          <span class="spark-line" style={{ left: `${(at / Math.max(1, last)) * 100}%` }} />
          <span class="spark-value" data-side={at > last / 2 ? "left" : "right"}>{words(at)}</span>
        </>
      )}
    </div>
  );
}
