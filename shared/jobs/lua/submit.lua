-- submit: write a new job, its first event and its place in the queue, all or nothing.
-- ARGV: now, id, owner, session, after, wait_ms, expires_ms, timeout_ms ('' for none), idempotency key or '', fingerprint,
--       queue_limit, owner_limit, parent or '', then the record's fields and values in pairs (kind, queue, priority, spec,
--       ...); `after` is a job to wait for, '' for none; with a session, the session's newest job takes its place.
--       wait_ms > 0 delays the job; it must be claimed within expires_ms and must have ended within timeout_ms.
-- Keys: job:<id>, its events and index; the queue; session:<session>; idempotency:<owner>:<key>; the parent
-- Returns {'created' | 'exists' | 'replayed' | 'conflict' | 'no_session' | 'queue_full' | 'owner_full', queues to wake or '',
-- the id of the job, or how many are queued}.
-- Promise: the same id, or the same idempotency key and fingerprint, sent twice make one job. A refusal writes nothing.

local id, owner, session, after, parent = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[13]
local key = job_key(id)
local answer, earlier = seen_before(id, owner, ARGV[9], ARGV[10])
if answer then return { answer, '', earlier } end

local fields, given = {}, {}
for i = 14, #ARGV, 2 do
  fields[#fields + 1], fields[#fields + 2] = ARGV[i], ARGV[i + 1]
  given[ARGV[i]] = ARGV[i + 1]
end
local queue = given.queue

local own = redis.call('ZCARD', PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner)
if own >= tonumber(ARGV[12]) then return { 'owner_full', '', digits(own) } end
local waiting = 0
for _, other in ipairs(redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':owners', 0, -1)) do
  waiting = waiting + redis.call('ZCARD', PREFIX .. 'queue:' .. queue .. ':jobs:' .. other)
end
if waiting >= tonumber(ARGV[11]) then return { 'queue_full', '', digits(waiting) } end

if session ~= '' then
  local session_key = PREFIX .. 'session:' .. session
  local record = redis.call('HMGET', session_key, 'owner', 'last_job', 'ttl_seconds')
  if record[1] ~= owner then return { 'no_session', '', id } end
  after = record[2] or ''
  redis.call('HSET', session_key, 'last_job', id)
  redis.call('EXPIRE', session_key, record[3])
  redis.call('EXPIRE', session_key .. ':messages', record[3])
end

if ARGV[8] ~= '' then
  fields[#fields + 1] = 'timeout_at'
  fields[#fields + 1] = digits(now + tonumber(ARGV[8]))
end
redis.call('HSET', key, 'id', id, 'owner', owner, 'session', session, 'parent', parent, 'status', 'queued',
  'created_at', digits(now), 'expires_at', digits(now + tonumber(ARGV[7])), 'attempt', 0, 'lost', 0, 'retries', 0,
  'worker', '', 'seq', 0, 'phase', 'queued', 'phase_at', digits(now), 'first_queue', queue, unpack(fields))
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
tally('submitted', given.kind)
emit(id, 'queued', 0, cjson.encode({ queue = queue }))
remember(id, owner, ARGV[9], ARGV[10])

-- A retried ingest takes its document over, unless that has become ready or was deleted.
if (given.retry_of or '') ~= '' and (given.document or '') ~= '' then
  local document = PREFIX .. 'document:' .. given.document
  local status = redis.call('HGET', document, 'status')
  if status and status ~= 'ready' then
    redis.call('HSET', document, 'job_id', id, 'attempt', 0, 'status', 'uploaded', 'reason', '', 'updated_at', digits(now))
  end
end

if parent ~= '' then
  -- The counts of a batch that has ended stand: a job that comes too late is not one of them.
  local batch = get(parent, 'status', 'cancel_requested_at')
  if batch[1] == 'in_progress' then
    redis.call('ZADD', job_key(parent) .. ':children', 0, id)
    redis.call('SADD', job_key(parent) .. ':open', id)
    redis.call('HINCRBY', job_key(parent), 'children', 1)
    keep_open(parent)
  end
  if batch[2] then
    finish(id, 'cancelled', 0, {}, {}, {})
    return { 'created', '', id }
  end
end
if tonumber(ARGV[6]) > 0 then redis.call('HSET', key, 'not_before', digits(now + tonumber(ARGV[6]))) end
if after ~= '' then
  local status = redis.call('HGET', job_key(after), 'status')
  if status and not FINAL[status] then
    redis.call('SADD', job_key(after) .. ':successors', id)
    redis.call('HSET', key, 'waiting', 'after', 'after', after)
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
    return { 'created', '', id }
  end
end
return { 'created', make_ready(id), id }
