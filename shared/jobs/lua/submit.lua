-- submit: write a new job, its first event and its place in the queue, all or nothing.
-- ARGV: now, id, owner, session, after, wait_ms, expires_ms, timeout_ms ('' for none), then the record's fields and
--       values in pairs (kind, queue, priority, spec, ...); `after` is a job to wait for, '' for none; with a session, the
--       session's newest job takes its place. wait_ms > 0 delays the job; it must be claimed within expires_ms and must
--       have ended within timeout_ms.
-- Keys: job:<id>, its events and index; the queue; session:<session>
-- Returns {'created' | 'exists' | 'no_session', queue to ring or ''}.
-- Promise: the same id sent twice makes one job.

local id, owner, session, after = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = job_key(id)
if redis.call('EXISTS', key) == 1 then return { 'exists', '' } end

if session ~= '' then
  local session_key = PREFIX .. 'session:' .. session
  local record = redis.call('HMGET', session_key, 'owner', 'last_job', 'ttl_seconds')
  if record[1] ~= owner then return { 'no_session', '' } end
  after = record[2] or ''
  redis.call('HSET', session_key, 'last_job', id)
  redis.call('EXPIRE', session_key, record[3])
  redis.call('EXPIRE', session_key .. ':messages', record[3])
end

local fields = {}
for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
if ARGV[8] ~= '' then
  fields[#fields + 1] = 'timeout_at'
  fields[#fields + 1] = digits(now + tonumber(ARGV[8]))
end
redis.call('HSET', key, 'id', id, 'owner', owner, 'session', session, 'status', 'queued', 'created_at', digits(now),
  'expires_at', digits(now + tonumber(ARGV[7])), 'attempt', 0, 'lost', 0, 'retries', 0, 'worker', '', 'seq', 0,
  'phase', 'queued', 'phase_at', digits(now), unpack(fields))
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
emit(id, 'queued', 0, cjson.encode({ queue = redis.call('HGET', key, 'queue') }))

if after ~= '' then
  local status = redis.call('HGET', job_key(after), 'status')
  if status and not FINAL[status] then
    redis.call('SADD', job_key(after) .. ':successors', id)
    redis.call('HSET', key, 'waiting', 'after', 'after', after)
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
    return { 'created', '' }
  end
end
if tonumber(ARGV[6]) > 0 then
  postpone(id, now + tonumber(ARGV[6]))
  return { 'created', '' }
end
return { 'created', enqueue(id) }
