import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

/** The values between two gaps, which have no line. */
function alone(chart: uPlot, series: number): number[] {
  const values = chart.data[series]!;
  return [...values.keys()].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);
}

export function sparkline(place: HTMLElement, data: any, colour: string): uPlot {
  return new uPlot({
    width: place.clientWidth || 120,
    height: place.clientHeight || 36,
    cursor: { show: false },
    legend: { show: false },
    padding: [2, 0, 2, 0],
    axes: [{ show: false }, { show: false }],
    scales: { x: { time: false }, y: { range: (_, low, high) => [Math.min(0, low), Math.max(1, high)] } },
    series: [{}, { stroke: colour.trim(), width: 1.5, fill: `color-mix(in oklch, ${colour.trim()} 18%, transparent)`, points: { show: true, size: 3, fill: colour.trim(), filter: alone } }],
  }, data, place);
}
