-- end: an attempt has ended its job.
-- ARGV: now, id, attempt, status ('completed' | 'failed' | 'cancelled'), result (JSON or ''), error (JSON or ''),
--       error code or '', service (tokens used, '' when unknown), last event's index, last event's data ('' for none),
--       then the session's new messages (JSON each)
-- Keys: the record and events; the worker's jobs; the queue's service; the session
-- Returns {'ok' | 'lost', queues to wake}.
-- Promise: the last delta, status, result, last event and session are written together; only the current attempt can end a
-- job; sent twice by the same attempt it answers 'ok' and changes nothing.

local id, attempt, status = ARGV[2], ARGV[3], ARGV[4]
local key, wakeups = job_key(id), {}
local outcome = outcome_of(id, attempt)
if outcome then return { outcome == status and 'ok' or 'lost', wakeups } end
local job = get(id, 'worker', 'queue', 'owner', 'cost', 'session', 'written', 'first_token_at')

if ARGV[10] ~= '' and tonumber(ARGV[9]) > tonumber(job[6] or 0) then
  redis.call('HSET', key, 'written', ARGV[9])
  if not job[7] then redis.call('HSET', key, 'first_token_at', digits(now)) end
  emit(id, 'delta', attempt, ARGV[10])
end
local fields, data = {}, {}
if ARGV[5] ~= '' then fields[#fields + 1] = 'result'; fields[#fields + 1] = ARGV[5] end
if ARGV[6] ~= '' then fields[#fields + 1] = 'error'; fields[#fields + 1] = ARGV[6] end
local code = nil
if ARGV[7] ~= '' then code = ARGV[7]; data.code = code end
close_attempt(id, attempt, status, code)
release_from_worker(id, job[1])
if ARGV[8] ~= '' then add_service(job[2], job[3], tonumber(ARGV[8]) - tonumber(job[4])) end
if job[5] and job[5] ~= '' and #ARGV > 10 then
  local session_key = PREFIX .. 'session:' .. job[5]
  -- A session deleted meanwhile stays deleted.
  local ttl = redis.call('HGET', session_key, 'ttl_seconds')
  if ttl then
    for i = 11, #ARGV do redis.call('RPUSH', session_key .. ':messages', ARGV[i]) end
    redis.call('EXPIRE', session_key, ttl)
    redis.call('EXPIRE', session_key .. ':messages', ttl)
  end
end
finish(id, status, attempt, fields, data, wakeups)
return { 'ok', wakeups }
