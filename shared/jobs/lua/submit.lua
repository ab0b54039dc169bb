-- submit: create a job with its first event and its queue entry, all or nothing.
-- Uses: transition, idempotency, session, limits
-- Arguments: id, owner, session, after, parent, wait_ms:number, expires_ms:number, timeout_ms:number, idempotency, fingerprint,
--   queue_limit:number, owner_limit:number, record{}
--   owner_limit is that of owners without one of their own.
--   session, after (a job to wait for), parent (a batch), timeout_ms and idempotency (the Idempotency-Key) may be empty. With
--   a session, the newest job of the session replaces after. The job starts after wait_ms and within expires_ms, and ends within
--   timeout_ms. record has further fields: kind, queue, priority, spec, ...
-- Keys: job:<id>, its events and index; the queue; the session; idempotency:<owner>:<key>; the parent
-- Returns {'created' | 'exists' | 'replayed' | 'conflict' | 'no_session' | 'queue_full' | 'owner_full', queue to wake or '',
-- the id of the job, or the limit of queued ones}.
-- Promise: the same id, or the same Idempotency-Key and fingerprint, creates one job. A refusal writes nothing.

local key, queue = job_key(id), record.queue
local outcome, earlier = find_earlier(id, owner, idempotency, fingerprint)
if outcome then return { outcome, '', earlier } end

local most = limit_of(owner, 'queued_jobs', owner_limit)
if redis.call('ZCARD', owner_jobs_key(queue, owner)) >= most then return { 'owner_full', '', digits(most) } end
if queue_length(queue) >= queue_limit then return { 'queue_full', '', digits(queue_limit) } end
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
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
count('submitted', record.kind)
emit(id, 'queued', 0, cjson.encode({ queue = queue }))
remember_request(id, owner, idempotency, fingerprint)
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
