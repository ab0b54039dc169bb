-- finish: end a job with the outcome of its attempt.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, attempt, status, result, error, code, service:number, token_us:number, usage, index:number, delta,
--   messages...
--   status is 'completed' | 'failed' | 'cancelled'; result and error are JSON or empty; code is the error's or empty; service is
--   the number of tokens used, empty when unknown; token_us is the time per output token after the first one, in microseconds, empty
--   when unknown; usage is the attempt's (lib/usage.lua) or empty; delta is the data of the last event or empty, index its
--   number; messages
--   are the question and the answer of a turn of a session, in JSON.
-- Keys: the record and events; the worker's jobs; the queue's service; the session
-- Returns {'ok' | 'lost', queues to wake}.
-- Promise: the last delta, status, result, last event and session are written together. Only the current attempt can end a
-- job. Sent twice by the same attempt, it returns 'ok' twice and writes once.

local attempt_field = 'attempt:' .. attempt
local job = record_of(id)
local record = decode_attempt(job[attempt_field])
local outcome = record.outcome
if outcome then return { outcome == status and 'ok' or 'lost', wakeups } end

if code == '' then code = nil end
local changes = { [attempt_field] = closed_attempt(record, status, code) }
if delta ~= '' and index > tonumber(job.written or 0) then
  job.seq, job.first_token_at = digits(tonumber(job.seq) + 1), job.first_token_at or timestamp
  changes.first_token_at = job.first_token_at
  add_event(id, job.seq, job.event_limit, 'delta', attempt, delta)
end
if result ~= '' then changes.bytes = tonumber(job.bytes or 0) + write_result(id, job.owner, result) end
if error ~= '' then changes.error = error end
if usage ~= '' then changes.usage = merge_usage(job.usage, usage) end
release_from_worker(id, job.worker, job)
if service then
  add_service(job.queue, job.owner, service - tonumber(job.cost))
  add_user_service(job.queue, job.owner, job.end_user, service - (tonumber(job.user_cost or '') or 0))
end
local noted = token_us and observed('per_token', job.kind .. ' ' .. (job.model or ''), token_us / 1e6)
if is_set(job.session) and #messages > 0 then keep_answer(job.owner, job.session, id, job.created_at, messages) end
finish(id, status, attempt, changes, code, job, noted)
return { 'ok', wakeups }
