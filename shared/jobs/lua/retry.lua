-- retry: an attempt met a fault that may pass (the engine's or a service's); the job is tried again later.
-- ARGV: now, id, attempt, delay_ms, error (JSON), error code
-- Keys: the record and events; the worker's jobs; jobs:due
-- Returns {'ok' | 'failed' (no retry is left: the job has ended) | 'lost', queues to wake}.
-- Promise: counts one retry, once, however often it is sent.

local id, attempt = ARGV[2], ARGV[3]
local key, wakeups = job_key(id), {}
local outcome = outcome_of(id, attempt)
if outcome == 'failed' then return { 'failed', wakeups } end
if outcome then return { (outcome == 'retried' or outcome == 'cancelled') and 'ok' or 'lost', wakeups } end
local job = get(id, 'worker', 'retries', 'max_retries', 'cancel_requested_at')
release_from_worker(id, job[1])
local retries = tonumber(job[2])
if job[4] and job[4] ~= '' then
  close_attempt(id, attempt, 'cancelled', ARGV[6])
  finish(id, 'cancelled', attempt, {}, {}, wakeups)
  return { 'ok', wakeups }
end
if retries >= tonumber(job[3]) then
  close_attempt(id, attempt, 'failed', ARGV[6])
  finish(id, 'failed', attempt, { 'error', ARGV[5] }, { code = ARGV[6] }, wakeups)
  return { 'failed', wakeups }
end
close_attempt(id, attempt, 'retried', ARGV[6])
redis.call('HSET', key, 'retries', retries + 1)
tally('attempts retried')
requeue(id, attempt, tonumber(ARGV[4]), ARGV[6], wakeups)
return { 'ok', wakeups }
