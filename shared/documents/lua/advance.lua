-- advance: record the progress or the end of a document, as reported by the attempt that works on it.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, job, attempt, changes{}
-- Keys: document:<id>; collection:<id>:status; counts
-- Returns 'ok', 'gone' when the document was deleted, or 'stale' when another job or a later attempt has it.
-- Promise: a result other than 'ok' writes nothing. Sent twice, it writes the same fields again.

local result = check_document_fence(document_fields(id, 'job_id', 'attempt'), job, attempt)
if result == 'ok' then write_document_as(id, attempt, changes) end
return result
