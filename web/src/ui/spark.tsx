// A small line of numbers over time, with the value and the time at the pointer or, by the arrow keys, at any place. uPlot is loaded with
// the first one.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { clockTime } from "../words.ts";

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
  const chart = useRef<{ setData: (data: any) => void; setSize: (size: any) => void; destroy: () => void } | null>(null);
  const chosen = useSignal<number | null>(null);
  const data = [values.map((_, at) => at), values];
  const latest = useRef(data);
  latest.current = data;
  const last = values.length - 1;
  useEffect(() => {
    let gone = false;
    // The observer may still report once after the element is gone from the page.
    const box = place.current!;
    void import("./uplot.ts").then(({ sparkline }) => {
      if (gone) return;
      chart.current = sparkline(box, latest.current, getComputedStyle(box).getPropertyValue(colour));
    });
    const sized = new ResizeObserver(() => chart.current?.setSize({ width: box.clientWidth, height: box.clientHeight }));
    sized.observe(box);
    return () => {
      gone = true;
      sized.disconnect();
      chart.current?.destroy();
    };
  }, []);
  useEffect(() => chart.current?.setData(data), [values]);
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
      <div ref={place} class="spark" />
      {at !== null && (
        <>
          <span class="spark-line" style={{ left: `${(at / Math.max(1, last)) * 100}%` }} />
          <span class="spark-value" data-side={at > last / 2 ? "left" : "right"}>{words(at)}</span>
        </>
      )}
    </div>
  );
}
