-- summarize_documents: count the documents of a collection by status, a limited number at a time.
-- Uses: document
-- Flags: allow-oom
-- Arguments: collection, after, batch:number
--   after is the last document of the call before, or empty.
-- Keys: collection:<id>:documents; document:<id> of up to `batch` documents
-- Returns {the last document that was counted, or '' when no more follow; the bytes of their files; then for each status a triple of
-- status, reason (only of 'failed') and number}.
-- Promise: it changes nothing. Documents that were replaced, or are hidden until they are deleted, are left out.

local first = after == '' and '-' or '(' .. after
local ids = redis.call('ZRANGEBYLEX', collection_key(collection) .. ':documents', first, '+', 'LIMIT', 0, batch)
local size, numbers, triples = 0, {}, {}
for _, id in ipairs(ids) do
  local document = document_fields(id, 'status', 'reason', 'size', 'delete_at')
  if document.status and document.status ~= 'replaced' and not document.delete_at then
    local reason = document.status == 'failed' and document.reason or ''
    local key = document.status .. '\0' .. reason
    if not numbers[key] then
      triples[#triples + 1] = { document.status, reason, key }
      numbers[key] = 0
    end
    numbers[key] = numbers[key] + 1
    size = size + tonumber(document.size or 0)
  end
end
local answer = { #ids == batch and ids[#ids] or '', digits(size) }
for _, triple in ipairs(triples) do
  answer[#answer + 1] = triple[1]
  answer[#answer + 1] = triple[2]
  answer[#answer + 1] = numbers[triple[3]]
end
return answer
