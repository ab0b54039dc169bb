-- submit: create the jobs of a request, each with its first event and its queue entry, all or none.
-- Uses: transition, conversation, idempotency, limits, request_batch, response, token_limits
-- Arguments: owner, key, defaults, queue_limit:number, owner_limit:number, bytes_limit:number, turns_limit:number, turn_bytes_limit:number,
--   jobs[id, session, after, parent, wait_ms, expires_ms, timeout_ms, idempotency, fingerprint, spec, requests, response, record, turn,
--   turn_parent, tokens]
--   key is the API key that the jobs count for, or empty; defaults is a JSON object of limits for owners without their own: tokens
--   per minute, day and month, and the limits of end users. tokens is what a job may use, empty if token limits do not apply to it.
--   owner_limit and bytes_limit are those of owners without limits of their own; the bytes are those of all jobs, queued and ended,
--   and of all sessions. turns_limit and turn_bytes_limit are those of one session.
--   session, after (a job to wait for), parent (a batch), timeout_ms and idempotency (the Idempotency-Key) may be empty. With
--   a session, the newest job of the session replaces after. A job starts after wait_ms and within expires_ms, and ends within
--   timeout_ms. requests is the state of a request batch, in JSON, and response what is stored of a response of /v1 besides its job;
--   both are empty for other jobs. turn is the question of a turn of a session, in JSON, and turn_parent the turn before it: 'root' for
--   none, empty for the current one. record is a JSON object of further fields: kind, queue, priority, ..., and conversation, the one of
--   /v1 to which a response will be added.
-- Keys: job:<id>, its input, requests, response, events and index; owner_bytes; the queue; the keys of lib/token_limits.lua; the session and its turns;
--   idempotency:<owner>:<key>; the parent; the conversation; owner:<owner>:request_batches
-- Returns {'created', queues to wake, 'created' | 'exists' | 'replayed' for each job, its id}, or {'conflict' | 'no_session' | 'no_turn' |
-- 'turns_full' | 'turn_bytes_full' | 'queue_full' | 'owner_full' | 'user_full' | 'bytes_full' | 'memory_full', {}, {the job of the
-- conflicting request, the turn that does not exist, or the limit that was reached}}, or {'budget_spent' | 'too_many_tokens' |
-- 'tokens_limited', {}, what reserve_tokens says}. 'created' has a fifth element, the state of the token rate: what it holds, what is
-- left, milliseconds until it is full.
-- Promise: the same id, or the same Idempotency-Key and fingerprint, creates one job. A refusal writes nothing.

-- Below this size a job is accepted until Redis itself refuses, so that small jobs go on when large ones no longer can.
local SMALL_BYTES = 65536

-- Whether a tenth of the memory or less is left, which running jobs need to end.
local function is_memory_short()
  local info = redis.call('INFO', 'memory')
  local used, maximum = string.match(info, 'used_memory:(%d+)'), string.match(info, 'maxmemory:(%d+)')
  return tonumber(maximum) > 0 and tonumber(used) > 0.9 * tonumber(maximum)
end

-- Why a session cannot have another turn, and the limit that was reached or the turn that does not exist; nil if it can.
local function refuse_turn(job)
  if not session_exists(owner, job.session) then return 'no_session', job.id end
  job.turn_parent_id = parent_of_new_turn(owner, job.session, job.turn_parent)
  if not job.turn_parent_id then return 'no_turn', job.turn_parent end
  if redis.call('HLEN', session_key(owner, job.session) .. ':tree') >= turns_limit then return 'turns_full', digits(turns_limit) end
  local bytes = tonumber(redis.call('HGET', session_bytes_key(owner), redis.sha1hex(job.session)) or 0)
  if bytes >= turn_bytes_limit then return 'turn_bytes_full', digits(turn_bytes_limit) end
end

local outcomes, ids = {}, {}
-- New jobs: how many there are in each queue, how many bytes they have together, and whether one is large.
local added, added_bytes, has_large = {}, 0, false
local charged, users = {}, {}
defaults = cjson.decode(defaults)
for i, job in ipairs(jobs) do
  local outcome, earlier = find_earlier(job.id, owner, job.idempotency, job.fingerprint)
  if outcome == 'conflict' then return { outcome, {}, { earlier } } end
  outcomes[i], ids[i] = outcome or 'created', earlier or job.id
  job.record = cjson.decode(job.record)
  if not outcome then
    if job.session ~= '' then
      local problem, value = refuse_turn(job)
      if problem then return { problem, {}, { value } } end
    end
    local queue = job.record.queue
    added[queue] = (added[queue] or 0) + 1
    job.end_user = job.record.end_user
    if is_set(job.end_user) then
      local jobs_key = user_jobs_key(queue, owner, digest_of_user(job.end_user))
      users[jobs_key] = (users[jobs_key] or 0) + 1
    end
    if job.tokens ~= '' then
      job.tokens = tonumber(job.tokens)
      charged[#charged + 1] = job
    end
    local size = #job.spec + #job.response
    added_bytes = added_bytes + size
    has_large = has_large or size > SMALL_BYTES
  end
end
local most = limit_of(owner, 'queued_jobs', owner_limit)
for queue, number in pairs(added) do
  if redis.call('ZCARD', owner_jobs_key(queue, owner)) + number > most then return { 'owner_full', {}, { digits(most) } } end
  if queue_length(queue) + number > queue_limit then return { 'queue_full', {}, { digits(queue_limit) } } end
end
for jobs_key, number in pairs(users) do
  local user_limit = limit_of(owner, 'end_user_queued_jobs', defaults.end_user_queued_jobs)
  if redis.call('ZCARD', jobs_key) + number > user_limit then return { 'user_full', {}, { digits(user_limit) } } end
end
local most_bytes = limit_of(owner, 'job_bytes', bytes_limit)
local bytes = tonumber(redis.call('HGET', PREFIX .. 'owner_bytes', owner) or 0) + bytes_of_sessions(owner)
if added_bytes > 0 and bytes + added_bytes > most_bytes then return { 'bytes_full', {}, { digits(most_bytes) } } end
if has_large and is_memory_short() then return { 'memory_full', {}, {} } end
local state = { 0, 0, 0 }
if #charged > 0 then
  local refusal, details = reserve_tokens(owner, key, charged, defaults)
  if refusal then return { refusal, {}, details } end
  state = details
end

local function create(job)
  local id, record, after = job.id, job.record, job.after
  local record_key = job_key(id)
  if job.session ~= '' then
    after = add_turn(owner, job.session, id, job.turn_parent_id, job.turn, record.summary, record.retry_of)
  end
  record.id, record.owner, record.session, record.parent, record.status = id, owner, job.session, job.parent, 'queued'
  record.created_at, record.expires_at = timestamp, digits(now + tonumber(job.expires_ms))
  record.attempt, record.lost, record.retries, record.worker, record.seq, record.bytes = 0, 0, 0, '', 1, #job.spec
  record.phase, record.phase_at, record.first_queue, record.waiting = 'queued', timestamp, record.queue, 'worker'
  if job.timeout_ms ~= '' then record.timeout_at = digits(now + tonumber(job.timeout_ms)) end
  if tonumber(job.wait_ms) > 0 then record.not_before = digits(now + tonumber(job.wait_ms)) end
  record.reserved = job.reserved
  set_fields(record_key, record)
  redis.call('HSET', input_key(id), 'spec', job.spec)
  add_owner_bytes(owner, #job.spec)
  if job.requests ~= '' then
    set_fields(requests_key(id), cjson.decode(job.requests))
    redis.call('ZADD', request_batches_key(owner), 0, id)
  end
  if job.response ~= '' then write_response(id, owner, job.response) end
  if is_set(record.conversation) then await_response(record.conversation, owner, id) end
  add_to_index(id, record)
  redis.call('SADD', PREFIX .. 'owners', owner)
  note(counted('submitted', record.kind), counted('entered', record.queue))
  add_event(id, 1, record.event_limit, 'queued', 0, cjson.encode({ queue = record.queue }))
  remember_request(id, owner, job.idempotency, job.fingerprint)
  if is_set(record.retry_of) and redis.call('EXISTS', job_key(record.retry_of)) == 1 then
    redis.call('HSET', job_key(record.retry_of), 'retried_as', id)
  end
  if is_set(record.retry_of) and is_set(record.document) then reassign_document(record.document, id) end

  if job.parent ~= '' and add_to_batch(job.parent, id) then
    finish(id, 'cancelled', 0)
    return
  end
  local predecessor = after ~= '' and fields(after, 'status').status
  if predecessor and not FINAL[predecessor] then
    redis.call('SADD', job_key(after) .. ':successors', id)
    redis.call('HSET', record_key, 'waiting', 'after', 'after', after)
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline_of(record), id)
  else
    make_ready(id, record)
  end
end

for i, job in ipairs(jobs) do
  if outcomes[i] == 'created' then create(job) end
end
return { 'created', wakeups, outcomes, ids, state }
