// The filter of a search as a line of text, such as `page<=3, name=minutes.pdf, year>=2020`.

const FIELDS = new Set(["document_id", "name", "media_type", "size", "created_at", "page"]);
const OPERATORS: Record<string, string> = { "=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte" };

type Scalar = string | number | boolean;
export type Filter = { and: Record<string, Record<string, Scalar>>[] };

/** The filter of the API that a line describes, null for an empty line, or the part of it that is none. */
export function parseFilter(line: string): Filter | null | { wrong: string } {
  const and: Filter["and"] = [];
  for (const part of line.split(",").map((text) => text.trim()).filter(Boolean)) {
    const [, field, operator, value] = /^([\w.-]+)\s*(!=|>=|<=|=|>|<)\s*(.+)$/.exec(part) ?? [];
    if (field === undefined) return { wrong: part };
    const name = FIELDS.has(field) || field.startsWith("metadata.") ? field : `metadata.${field}`;
    and.push({ [name]: { [OPERATORS[operator!]!]: scalar(value!) } });
  }
  return and.length === 0 ? null : { and };
}

function scalar(text: string): Scalar {
  if (text === "true" || text === "false") return text === "true";
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  return text.replace(/^"(.*)"$/, "$1");
}
