-- retry: run a job again later, after a transient fault of the engine or of a service.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, attempt, delay_ms:number, error, code, usage
--   error is JSON; usage is the attempt's (lib/usage.lua) or empty.
-- Keys: the record and events; the worker's jobs; jobs:due
-- Returns {'ok' | 'failed' (no retry is left: the job has ended) | 'lost', queues to wake}.
-- Promise: sent twice by the same attempt, it counts one retry.

local record = read_attempt(id, attempt)
local outcome = record.outcome
if outcome == 'failed' then return { 'failed', wakeups } end
if outcome then return { (outcome == 'retried' or outcome == 'cancelled') and 'ok' or 'lost', wakeups } end
local job = fields(id, 'worker', 'retries', 'max_retries', 'cancel_requested_at', 'usage', unpack(RELEASE_FIELDS))
if usage ~= '' then redis.call('HSET', job_key(id), 'usage', merge_usage(job.usage, usage)) end
release_from_worker(id, job.worker, job)
if is_set(job.cancel_requested_at) then
  close_attempt(id, record, 'cancelled', code)
  finish(id, 'cancelled', attempt)
  return { 'ok', wakeups }
end
if tonumber(job.retries) >= tonumber(job.max_retries) then
  close_attempt(id, record, 'failed', code)
  finish(id, 'failed', attempt, { error = error }, code)
  return { 'failed', wakeups }
end
close_attempt(id, record, 'retried', code)
redis.call('HSET', job_key(id), 'retries', tonumber(job.retries) + 1)
count('attempts retried')
requeue(id, attempt, delay_ms, code)
return { 'ok', wakeups }
