-- submit: create a job with its first event and its queue entry, all or nothing.
-- Uses: transition, idempotency, session, limits, request_batch, response
-- Arguments: id, owner, session, after, parent, wait_ms:number, expires_ms:number, timeout_ms:number, idempotency, fingerprint,
--   queue_limit:number, owner_limit:number, bytes_limit:number, spec, requests, response, record{}
--   owner_limit and bytes_limit are those of owners without limits of their own; the bytes are those of all jobs, queued and ended.
--   session, after (a job to wait for), parent (a batch), timeout_ms and idempotency (the Idempotency-Key) may be empty. With
--   a session, the newest job of the session replaces after. The job starts after wait_ms and within expires_ms, and ends within
--   timeout_ms. requests is the state of a request batch, in JSON, and response what is stored of a response of /v1 besides its job;
--   both are empty for other jobs. record has further fields: kind, queue, priority, ...
-- Keys: job:<id>, its input, requests, response, events and index; owner_bytes; the queue; the session;
--   idempotency:<owner>:<key>; the parent; owner:<owner>:request_batches
-- Returns {'created' | 'exists' | 'replayed' | 'conflict' | 'no_session' | 'queue_full' | 'owner_full' | 'bytes_full' |
-- 'memory_full', queue to wake or '', the id of the job, or the limit that was reached}.
-- Promise: the same id, or the same Idempotency-Key and fingerprint, creates one job. A refusal writes nothing.

local key, queue = job_key(id), record.queue
local outcome, earlier = find_earlier(id, owner, idempotency, fingerprint)
if outcome then return { outcome, '', earlier } end

-- Below this size a job is accepted until Redis itself refuses, so that small jobs go on when large ones no longer can.
local SMALL_BYTES = 65536

-- Whether a tenth of the memory or less is left, which running jobs need to end.
local function is_memory_short()
  local info = redis.call('INFO', 'memory')
  local used, maximum = string.match(info, 'used_memory:(%d+)'), string.match(info, 'maxmemory:(%d+)')
  return tonumber(maximum) > 0 and tonumber(used) > 0.9 * tonumber(maximum)
end

local most = limit_of(owner, 'queued_jobs', owner_limit)
if redis.call('ZCARD', owner_jobs_key(queue, owner)) >= most then return { 'owner_full', '', digits(most) } end
if queue_length(queue) >= queue_limit then return { 'queue_full', '', digits(queue_limit) } end
local bytes, most_bytes = tonumber(redis.call('HGET', PREFIX .. 'owner_bytes', owner) or 0), limit_of(owner, 'job_bytes', bytes_limit)
if bytes + #spec + #response > most_bytes then return { 'bytes_full', '', digits(most_bytes) } end
if #spec + #response > SMALL_BYTES and is_memory_short() then return { 'memory_full', '', '' } end
if session ~= '' then
  after = add_turn(owner, session, id)
  if not after then return { 'no_session', '', id } end
end

redis.call('HSET', key, 'id', id, 'owner', owner, 'session', session, 'parent', parent, 'status', 'queued',
  'created_at', timestamp, 'expires_at', digits(now + expires_ms), 'attempt', 0, 'lost', 0, 'retries', 0,
  'worker', '', 'seq', 0, 'phase', 'queued', 'phase_at', timestamp, 'first_queue', queue)
if timeout_ms then record.timeout_at = digits(now + timeout_ms) end
if wait_ms > 0 then record.not_before = digits(now + wait_ms) end
set_fields(key, record)
write_input(id, owner, 'spec', spec)
if requests ~= '' then
  set_fields(requests_key(id), cjson.decode(requests))
  redis.call('ZADD', request_batches_key(owner), 0, id)
end
if response ~= '' then write_response(id, owner, response) end
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
count('submitted', record.kind)
emit(id, 'queued', 0, cjson.encode({ queue = queue }))
remember_request(id, owner, idempotency, fingerprint)
if is_set(record.retry_of) and redis.call('EXISTS', job_key(record.retry_of)) == 1 then
  redis.call('HSET', job_key(record.retry_of), 'retried_as', id)
end
if is_set(record.retry_of) and is_set(record.document) then reassign_document(record.document, id) end

if parent ~= '' and add_to_batch(parent, id) then
  finish(id, 'cancelled', 0)
  return { 'created', '', id }
end
local predecessor = after ~= '' and fields(after, 'status').status
if predecessor and not FINAL[predecessor] then
  redis.call('SADD', job_key(after) .. ':successors', id)
  redis.call('HSET', key, 'waiting', 'after', 'after', after)
  redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
  return { 'created', '', id }
end
make_ready(id)
return { 'created', wakeups[1] or '', id }
