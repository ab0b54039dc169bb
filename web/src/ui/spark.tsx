// A small line of numbers over time. uPlot is loaded with the first one.

import { useEffect, useRef } from "preact/hooks";

export function Spark({ values, label, colour = "--chart-write" }: { values: (number | null)[]; label: string; colour?: string }) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<{ setData: (data: any) => void; setSize: (size: any) => void; destroy: () => void } | null>(null);
  const data = [values.map((_, at) => at), values];
  const latest = useRef(data);
  latest.current = data;
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
  return <div ref={place} class="spark" role="img" aria-label={label} />;
}
