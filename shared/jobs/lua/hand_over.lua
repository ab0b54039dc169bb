-- hand over: an attempt gives its job back unfinished: to the queue of its next phase, or, by a worker that stops, to its
-- own queue.
-- ARGV: now, id, attempt, outcome ('handed_over' | 'released'), queue, context (JSON, '' to leave it as it is)
-- Keys: the record and events; the worker's jobs; the queue
-- Returns {'ok' | 'lost', queues to wake}.
-- Promise: costs the job neither a lost attempt nor a retry; sent twice by the same attempt it moves the job once.

local id, attempt, outcome, queue = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key, wakeups = job_key(id), {}
local ended = outcome_of(id, attempt)
if ended then return { ended == outcome and 'ok' or 'lost', wakeups } end
local job = get(id, 'worker', 'cancel_requested_at')
close_attempt(id, attempt, outcome)
release_from_worker(id, job[1])
if ARGV[6] ~= '' then redis.call('HSET', key, 'context', ARGV[6]) end
redis.call('HSET', key, 'queue', queue)
if job[2] and job[2] ~= '' then
  finish(id, 'cancelled', attempt, {}, {}, wakeups)
else
  requeue(id, attempt, 0, outcome, wakeups)
end
return { 'ok', wakeups }
