-- hand_over: return an unfinished job to a queue: that of its next phase, or its own queue when its worker stops or a service is away.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, attempt, outcome, delay_ms:number, error, code, queue, context, found, usage
--   outcome is 'handed_over' | 'released'; error (JSON) and code describe an outage that interrupted the attempt, else they are empty;
--   context is JSON, empty to keep the present one; found is JSON that the event repeats for clients, or empty; usage is the
--   attempt's (lib/usage.lua) or empty.
-- Keys: the record, input and events; the worker's jobs; the queue
-- Returns {'ok' | 'failed' (the outage has lasted for as long as the job may wait in a queue: it has ended) | 'lost', queues to wake}.
-- Promise: it costs the job neither a lost attempt nor a retry. Sent twice by the same attempt, it moves the job once.

local record = read_attempt(id, attempt)
local ended = record.outcome
if ended == 'failed' and code ~= '' then return { 'failed', wakeups } end
if ended then return { ended == outcome and 'ok' or 'lost', wakeups } end
local job = fields(id, 'worker', 'cancel_requested_at', 'cost', 'usage', unpack(RELEASE_FIELDS))
if usage ~= '' then redis.call('HSET', job_key(id), 'usage', merge_usage(job.usage, usage)) end
-- The next attempt is charged for what this one could not do.
if code ~= '' then
  add_service(job.queue, job.owner, -tonumber(job.cost))
  if is_set(job.user_cost) then add_user_service(job.queue, job.owner, job.end_user, -tonumber(job.user_cost)) end
end
release_from_worker(id, job.worker, job)
if code ~= '' and not job.cancel_requested_at and outlasts_patience(id, attempt) then
  close_attempt(id, record, 'failed', code)
  finish(id, 'failed', attempt, { error = error }, code)
  return { 'failed', wakeups }
end
close_attempt(id, record, outcome, code ~= '' and code or nil)
if context ~= '' then write_input(id, job.owner, 'context', context) end
redis.call('HSET', job_key(id), 'queue', queue)
if queue ~= job.queue then
  note(counted('left', job.queue, outcome), counted('entered', queue))
end
if is_set(job.cancel_requested_at) and not must_close_output(id) then
  finish(id, 'cancelled', attempt)
else
  requeue(id, attempt, delay_ms, code ~= '' and code or outcome, found)
end
return { 'ok', wakeups }
