// The paths of a small line chart: a line with gaps where nothing was recorded, the area below it, and dots for values between two gaps.

const HEIGHT = 100;

export interface SparkPaths {
  line: string;
  area: string;
  dots: string;
  width: number;
  height: number;
}

/** Paths within a box of one unit for each step between two values. The scale starts at 0 and is never below 1. */
export function sparkPaths(values: (number | null)[]): SparkPaths {
  const known = values.filter((value) => value !== null);
  const high = Math.max(1, ...known);
  const low = Math.min(0, ...known);
  const y = (value: number) => Math.round(HEIGHT * 10 * (1 - (value - low) / (high - low))) / 10;
  let line = "";
  let area = "";
  let dots = "";
  for (let start = 0; start < values.length; start += 1) {
    if (values[start] === null) continue;
    let end = start;
    while (end + 1 < values.length && values[end + 1] !== null) end += 1;
    const points = values.slice(start, end + 1).map((value, place) => `${start + place} ${y(value!)}`).join("L");
    // A path of no length with round caps is a dot.
    if (start === end) dots += `M${points}h0`;
    else {
      line += `M${points}`;
      area += `M${start} ${HEIGHT}L${points}L${end} ${HEIGHT}Z`;
    }
    start = end;
  }
  return { line, area, dots, width: Math.max(1, values.length - 1), height: HEIGHT };
}
