-- What every move shares. It is put before each of the other files when they are loaded (Redis' Lua has no require).
--
-- Keys, all with the prefix "eh:" (one Redis, no Cluster: a move may touch a queue and a job together):
--   job:<id>                 hash    the record; fields are listed in shared/jobs/models.py
--   job:<id>:events          stream  what clients may see; entry ids are <sequence>-0
--   job:<id>:successors      set     jobs that wait for this one to end
--   jobs:due                 zset    every job that has not ended -> time (ms) at which someone must look at it
--   reaping                  string  there while janitors reap without a gap; reaping:resumed: for a while after a gap
--   jobs:dead_letters                zset    jobs that lost too many attempts -> time of their end
--   job:<id>:children        zset    of a batch: ids of its jobs, score 0
--   job:<id>:open            set     of a batch: those of its jobs that have not ended
--   owners                   set     every owner that has ever had a job
--   owner:<owner>:jobs       zset    ids of this owner's jobs, score 0, so that they sort by id
--   queues                   set     every queue that has ever had a job
--   queue:<q>:owners         zset    owners with a job in this queue -> service received (tokens / weight)
--   queue:<q>:jobs:<owner>   zset    jobs -> priority, then time of submission
--   queue:<q>:service        hash    owner -> service received, also of owners with nothing queued now
--   queue:<q>:level          string  service of the owner whose turn it last was, when it came
--   queue:<q>:gaps           list    milliseconds between the latest claims while jobs waited, newest first
--   queue:<q>:claimed_at     string  time of the latest claim, kept while jobs wait
--   weights                  hash    owner -> weight of its share, where it is not 1
--   counts                   hash    how often what has happened since the Redis is there, for metrics (overview)
--   idempotency:<owner>:<k>  hash    what was submitted with this Idempotency-Key: fingerprint, job
--   wakeup_sent:<q>                 string  tickets were issued for this queue a moment ago
--   workers                  hash    worker -> what it last told of itself (enroll)
--   assignments                 hash    name of a gpu worker -> which model it should hold, and could (seat, wish, demand)
--   unschedulable:<q>        string  since when jobs wait in this queue for a model that no living worker could hold
--   models                   hash    every model that a worker has ever offered -> when it first was
--   claim:<token>            string  "<job id> <attempt>" claimed with this token
--   worker:<w>:jobs          set     jobs that this worker has claimed
--   document:<id>            hash    a document; its status follows its job into failure
--   session:<id>             hash    a chat session; session:<id>:messages is the list of its messages
--   owner:<owner>:webhooks   zset    ids of the endpoints that this owner keeps; webhook:<id> is the hash of one
--   delivery:<id>            hash    something to be told to a webhook; delivery:<id>:job is the job as it then was
--   deliveries:due           zset    deliveries -> when someone must look at them (more: shared/webhooks/lua/prelude.lua)
--   job:<id>:deliveries      zset    of a job: ids of its deliveries, score 0; owner:<owner>:deliveries those of an owner
-- Channels: ended (the id of each job that ends), worker:<w> (a job that this worker is to stop, or that its wish has changed),
-- deliveries (there are new ones).
-- ARGV[1] is the time in Unix milliseconds, or '' for Redis' own clock; tests pass it in.

local PREFIX = 'eh:'
local FINAL = { completed = true, failed = true, cancelled = true, expired = true }
local SERVICE_MEMORY_SECONDS = 3600
local CHILDREN_AT_ONCE = 1000
local IDEMPOTENCY_SECONDS = 24 * 3600
-- A delivery is tried for about three days, also when its job is kept for less.
local DELIVERY_MS = 4 * 24 * 3600 * 1000

local finish -- defined below; a batch ends with its last job, so ending calls itself

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local now = clock()

local function job_key(id) return PREFIX .. 'job:' .. id end

-- Lua prints large doubles as 1.7e+12; Redis and Python want the digits.
local function digits(number) return string.format('%.0f', number) end

local function get(id, ...)
  return redis.call('HMGET', job_key(id), ...)
end

-- For metrics: one more of these.
local function tally(...)
  redis.call('HINCRBY', PREFIX .. 'counts', table.concat({ ... }, ' '), 1)
end

local function emit(id, kind, attempt, data)
  local key = job_key(id)
  local sequence = redis.call('HINCRBY', key, 'seq', 1)
  local limit = redis.call('HGET', key, 'event_limit') or '10000'
  redis.call('XADD', key .. ':events', 'MAXLEN', '~', limit, sequence .. '-0',
    'type', kind, 'attempt', attempt, 'at', digits(now), 'data', data)
end

local function add_service(queue, owner, tokens)
  local stem = PREFIX .. 'queue:' .. queue
  local share = tokens / tonumber(redis.call('HGET', PREFIX .. 'weights', owner) or 1)
  -- XX: an owner with nothing queued must not enter the set that claim chooses from. For one that is in it, the set counts:
  -- it outlives the hash when nobody has claimed for long, and a count begun anew would win every turn.
  local total = redis.call('ZADD', stem .. ':owners', 'XX', 'INCR', share, owner)
  if total then
    redis.call('HSET', stem .. ':service', owner, total)
  else
    redis.call('HINCRBYFLOAT', stem .. ':service', owner, share)
  end
  redis.call('EXPIRE', stem .. ':service', SERVICE_MEMORY_SECONDS)
end

-- What an id or an Idempotency-Key was used for before: nil when for nothing, else the answer to give and the job.
local function seen_before(id, owner, idempotency, fingerprint)
  if redis.call('EXISTS', job_key(id)) == 1 then return 'exists', id end
  if idempotency == '' then return nil end
  local seen = redis.call('HMGET', PREFIX .. 'idempotency:' .. owner .. ':' .. idempotency, 'fingerprint', 'job')
  if not seen[1] then return nil end
  if seen[1] ~= fingerprint then return 'conflict', seen[2] end
  return 'replayed', seen[2]
end

local function remember(id, owner, idempotency, fingerprint)
  if idempotency == '' then return end
  local key = PREFIX .. 'idempotency:' .. owner .. ':' .. idempotency
  redis.call('HSET', key, 'fingerprint', fingerprint, 'job', id)
  redis.call('EXPIRE', key, IDEMPOTENCY_SECONDS)
end

-- By when a queued job must be looked at: it must have started (unless it has been, once) and must have ended.
local function deadline(id)
  local job = get(id, 'expires_at', 'timeout_at', 'started_at')
  local start_by = job[3] and math.huge or tonumber(job[1])
  return math.min(start_by, tonumber(job[2] or 'inf'))
end

-- Put a queued job where claim finds it. A newcomer starts at the least service among those waiting, or among those who
-- last were, so that neither a long absence nor a first visit buys the whole queue.
local function enqueue(id)
  local job = get(id, 'queue', 'owner', 'priority', 'created_at')
  local queue, owner = job[1], job[2]
  local owners = PREFIX .. 'queue:' .. queue .. ':owners'
  if not redis.call('ZSCORE', owners, owner) then
    local service = PREFIX .. 'queue:' .. queue .. ':service'
    local own = tonumber(redis.call('HGET', service, owner) or 0)
    local least = redis.call('ZRANGE', owners, 0, 0, 'WITHSCORES')[2] or
      redis.call('GET', PREFIX .. 'queue:' .. queue .. ':level')
    if least and tonumber(least) > own then
      own = least
      redis.call('HSET', service, owner, own)
      redis.call('EXPIRE', service, SERVICE_MEMORY_SECONDS)
    end
    redis.call('ZADD', owners, own, owner)
  end
  redis.call('ZADD', PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner, tonumber(job[3]) * 1e13 + tonumber(job[4]), id)
  redis.call('SADD', PREFIX .. 'queues', queue)
  redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
  redis.call('HSET', job_key(id), 'waiting', 'worker')
  return queue
end

local function dequeue(id, queue, owner)
  local jobs = PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner
  redis.call('ZREM', jobs, id)
  if redis.call('EXISTS', jobs) == 0 then
    redis.call('ZREM', PREFIX .. 'queue:' .. queue .. ':owners', owner)
  end
end

-- Make a job wait until a time; the janitor's reap puts it back into its queue.
local function postpone(id, not_before)
  redis.call('HSET', job_key(id), 'not_before', digits(not_before), 'waiting', 'retry_at')
  redis.call('ZADD', PREFIX .. 'jobs:due', math.min(not_before, deadline(id)), id)
end

local function close_attempt(id, attempt, outcome, code)
  local key, field = job_key(id), 'attempt:' .. attempt
  local record = cjson.decode(redis.call('HGET', key, field))
  record.ended_at, record.outcome, record.error = now, outcome, code
  redis.call('HSET', key, field, cjson.encode(record))
end

-- Put a job that queue_length for nothing but the time where it belongs.
-- Returns the queues to wake or ''.
local function make_ready(id)
  local not_before = tonumber(redis.call('HGET', job_key(id), 'not_before') or 0)
  if not_before <= now then return enqueue(id) end
  postpone(id, not_before)
  return ''
end

-- How an attempt ended: nil while it runs, 'lost' when nothing is known of it (any more).
local function outcome_of(id, attempt)
  local record = redis.call('HGET', job_key(id), 'attempt:' .. attempt)
  if not record then return 'lost' end
  return cjson.decode(record).outcome
end

-- Take a job away from the worker that has_running_jobs it.
local function release_from_worker(id, worker)
  redis.call('SREM', PREFIX .. 'worker:' .. worker .. ':jobs', id)
end

-- A document whose job ends without having said what became of it has failed, whoever ended the job.
local UNDER_WAY = { uploaded = true, parsing = true, chunking = true, embedding = true, indexing = true }

local function fail_document(document, id, status)
  local key = PREFIX .. 'document:' .. document
  local record = redis.call('HMGET', key, 'job_id', 'status')
  if record[1] ~= id or not UNDER_WAY[record[2]] then return end
  local reason = 'Its job is ' .. status .. '.'
  local problem = redis.call('HGET', job_key(id), 'error')
  if problem then reason = cjson.decode(problem).message end
  redis.call('HSET', key, 'status', 'failed', 'reason', reason, 'updated_at', digits(now))
end

local function counts(id)
  local job = get(id, 'children', 'completed', 'failed', 'cancelled', 'expired')
  local result = { total = tonumber(job[1] or 0) }
  local ended = 0
  for i, status in ipairs({ 'completed', 'failed', 'cancelled', 'expired' }) do
    result[status] = tonumber(job[i + 1] or 0)
    ended = ended + result[status]
  end
  return result, ended
end

-- Something has happened to a batch that more jobs may join: the time after which the janitor seals it begins anew.
local function keep_open(id)
  local batch = get(id, 'status', 'sealed', 'seal_ms')
  if batch[1] ~= 'in_progress' or batch[2] == '1' or not batch[3] then return end
  local seal_at = digits(now + tonumber(batch[3]))
  redis.call('HSET', job_key(id), 'expires_at', seal_at)
  redis.call('ZADD', PREFIX .. 'jobs:due', seal_at, id)
end

-- A batch ends when it is sealed (no job will join it) and its last job has ended.
local function finish_batch_if_done(id, wakeups)
  local result, ended = counts(id)
  local batch = get(id, 'sealed', 'cancel_requested_at', 'status')
  if batch[3] ~= 'in_progress' then return end
  if batch[1] == '1' and ended == result.total then
    local status = 'completed'
    if batch[2] then status = 'cancelled' end
    finish(id, status, 0, { 'result', cjson.encode(result) }, {}, wakeups)
  elseif ended % math.max(1, math.floor(result.total / 100)) == 0 then
    emit(id, 'progress', 0, cjson.encode({ phase = 'running', done = ended, total = result.total, unit = 'jobs' }))
  end
end

local function contains(texts, text)
  for _, other in ipairs(texts) do
    if other == text then return true end
  end
  return false
end

-- The layout of shared/ids.py: ten digits of time, then sixteen. The same `what` at the same time is the same delivery.
local function delivery_id(what)
  local alphabet, milliseconds, digits_of_time = '0123456789abcdefghjkmnpqrstvwxyz', now, ''
  for _ = 1, 10 do
    local digit = milliseconds % 32
    digits_of_time = string.sub(alphabet, digit + 1, digit + 1) .. digits_of_time
    milliseconds = (milliseconds - digit) / 32
  end
  return 'dlv_' .. digits_of_time .. string.sub(redis.sha1hex(what), 1, 16)
end

-- Something happened to a job that webhooks may want to hear: write a delivery to the job's own and to each endpoint of its
-- owner that listens, with the job as it now stands, as its record may be gone when a receiver is there again.
local function notify(id, event)
  local job = get(id, 'owner', 'kind', 'webhook', 'retention_ms')
  local owner, targets, own = job[1], {}, nil
  if job[3] then
    local webhook = cjson.decode(job[3])
    if contains(webhook.events, event) then targets[1], own = webhook, webhook.url end
  end
  for _, endpoint in ipairs(redis.call('ZRANGE', PREFIX .. 'owner:' .. owner .. ':webhooks', 0, -1)) do
    local kept = redis.call('HMGET', PREFIX .. 'webhook:' .. endpoint, 'url', 'authority', 'events', 'job_kinds', 'disabled')
    if kept[1] and kept[1] ~= own and kept[5] == '' and contains(cjson.decode(kept[3]), event) and
      contains(cjson.decode(kept[4]), job[2]) then
      targets[#targets + 1] = { url = kept[1], authority = kept[2], endpoint = endpoint, secret = '' }
    end
  end
  for _, target in ipairs(targets) do
    local delivery = delivery_id(id .. ' ' .. event .. ' ' .. target.endpoint .. ' ' .. target.url)
    local key, keep = PREFIX .. 'delivery:' .. delivery, digits(math.max(tonumber(job[4]), DELIVERY_MS))
    redis.call('HSET', key, 'id', delivery, 'owner', owner, 'job', id, 'event', event, 'url', target.url,
      'authority', target.authority, 'endpoint', target.endpoint, 'secret', target.secret, 'status', 'pending',
      'created_at', digits(now), 'next_at', digits(now), 'attempt', 0, 'failures', 0, 'lost', 0, 'retention_ms', job[4])
    tally('deliveries made')
    redis.call('COPY', job_key(id), key .. ':job', 'REPLACE')
    redis.call('HSET', key .. ':job', 'spec', '{}')
    redis.call('HDEL', key .. ':job', 'context', 'webhook')
    redis.call('PEXPIRE', key, keep)
    redis.call('PEXPIRE', key .. ':job', keep)
    redis.call('ZADD', PREFIX .. 'deliveries:due', digits(now), delivery)
    redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':deliveries', 0, delivery)
    redis.call('ZADD', job_key(id) .. ':deliveries', 0, delivery)
    redis.call('PEXPIRE', job_key(id) .. ':deliveries', keep)
  end
  if #targets > 0 then redis.call('PUBLISH', PREFIX .. 'deliveries', #targets) end
end

-- The one way into a final status. `wakeups` collects the queues in which a job has become claimable.
finish = function(id, status, attempt, fields, data, wakeups)
  local key = job_key(id)
  local job = get(id, 'queue', 'owner', 'status', 'retention_ms', 'waiting', 'after', 'document', 'parent', 'kind')
  if job[3] == 'queued' then dequeue(id, job[1], job[2]) end
  redis.call('HSET', key, 'status', status, 'ended_at', digits(now), 'waiting', '', 'phase', status,
    'phase_at', digits(now), unpack(fields))
  if job[7] and job[7] ~= '' then fail_document(job[7], id, status) end
  redis.call('ZREM', PREFIX .. 'jobs:due', id)
  data.status = status
  emit(id, 'ended', attempt, cjson.encode(data))
  redis.call('PUBLISH', PREFIX .. 'ended', id)
  tally('ended', job[9], status)
  redis.call('PEXPIRE', key, job[4])
  redis.call('PEXPIRE', key .. ':events', job[4])
  notify(id, 'job.' .. status)
  -- A job that ends while it still queue_length for another hands its own successors on, or they would overtake that other.
  local predecessor = nil
  if job[5] == 'after' and not FINAL[redis.call('HGET', job_key(job[6]), 'status') or 'completed'] then predecessor = job[6] end
  for _, successor in ipairs(redis.call('SMEMBERS', key .. ':successors')) do
    if redis.call('HGET', job_key(successor), 'status') == 'queued' then
      if predecessor then
        redis.call('SADD', job_key(predecessor) .. ':successors', successor)
        redis.call('HSET', job_key(successor), 'after', predecessor)
      else
        local queue = make_ready(successor)
        if queue ~= '' then wakeups[#wakeups + 1] = queue end
      end
    end
  end
  redis.call('DEL', key .. ':successors')
  redis.call('PEXPIRE', key .. ':children', job[4])
  if job[8] and job[8] ~= '' and redis.call('SREM', job_key(job[8]) .. ':open', id) == 1 then
    -- An archive counts as one document until it is unpacked, and from then on its documents count in its place.
    if job[9] == 'unpack' and status == 'completed' then
      redis.call('HINCRBY', job_key(job[8]), 'children', -1)
    else
      redis.call('HINCRBY', job_key(job[8]), status, 1)
    end
    keep_open(job[8])
    finish_batch_if_done(job[8], wakeups)
  end
end

-- A client no longer wants a job: a queued one ends, a running one's worker is told, a batch passes it on to its jobs.
-- Returns 'cancelled' | 'requested'.
local cancel
cancel = function(id, wakeups)
  local key = job_key(id)
  local job = get(id, 'status', 'attempt', 'worker', 'cancel_requested_at', 'kind')
  if not job[4] then redis.call('HSET', key, 'cancel_requested_at', digits(now)) end
  if job[1] == 'queued' then
    finish(id, 'cancelled', job[2], {}, {}, wakeups)
    return 'cancelled'
  end
  if job[5] == 'batch' then
    redis.call('HSET', key, 'sealed', '1')
    local open = redis.call('SRANDMEMBER', key .. ':open', CHILDREN_AT_ONCE)
    for _, child in ipairs(open) do
      if not redis.call('HGET', job_key(child), 'cancel_requested_at') then cancel(child, wakeups) end
    end
    -- The janitor goes on until none is left, whatever becomes of the caller.
    if redis.call('HGET', key, 'status') == 'in_progress' then
      redis.call('ZADD', PREFIX .. 'jobs:due', now + 1000, id)
      finish_batch_if_done(id, wakeups)
    end
    if FINAL[redis.call('HGET', key, 'status')] then return 'cancelled' end
    return 'requested'
  end
  -- The renewal tells the worker too, some seconds later; this message makes it stop at once.
  redis.call('PUBLISH', PREFIX .. 'worker:' .. job[3], cjson.encode({ cancel = id, attempt = tonumber(job[2]) }))
  return 'requested'
end

-- A job in progress goes back to be claimed again.
local function requeue(id, attempt, delay_ms, why, wakeups)
  redis.call('HSET', job_key(id), 'status', 'queued', 'worker', '', 'phase', 'queued', 'phase_at', digits(now))
  emit(id, 'requeued', attempt, cjson.encode({ why = why, delay_ms = delay_ms }))
  if delay_ms > 0 then
    postpone(id, now + delay_ms)
  else
    wakeups[#wakeups + 1] = enqueue(id)
  end
end

local function fail_fields(code, message)
  return { 'error', cjson.encode({ code = code, message = message, param = cjson.null, type = 'job_error' }) }
end

local function time_out(id, attempt, wakeups)
  local message = 'the job did not end within its timeout'
  finish(id, 'failed', attempt, fail_fields('timeout', message), { code = 'timeout' }, wakeups)
end

-- The attempt of a job is lost: its worker has died or fallen silent.
local function mark_attempt_lost(id, wakeups)
  local job = get(id, 'attempt', 'worker', 'lost', 'max_attempts', 'cancel_requested_at')
  local attempt, worker = job[1], job[2]
  local lost = tonumber(job[3]) + 1
  close_attempt(id, attempt, 'lost')
  release_from_worker(id, worker)
  redis.call('HSET', job_key(id), 'lost', lost)
  tally('attempts lost')
  emit(id, 'attempt_lost', attempt, cjson.encode({ attempt = tonumber(attempt), worker = worker }))
  if job[5] and job[5] ~= '' then
    finish(id, 'cancelled', attempt, {}, {}, wakeups)
  elseif lost >= tonumber(job[4]) then
    local message = 'every worker that ran this job died (' .. lost .. ' attempts, the last on ' .. worker ..
      '); look at the logs of that worker, then replay the job'
    redis.call('ZADD', PREFIX .. 'jobs:dead_letters', digits(now), id)
    finish(id, 'failed', attempt, fail_fields('worker_lost', message), { code = 'worker_lost' }, wakeups)
  else
    -- The first loss is most often the worker's fault, so it costs no time; a job that kills its workers slows down.
    local delay_ms = 0
    if lost > 1 then delay_ms = math.min(1000 * 2 ^ (lost - 1), 60000) end
    requeue(id, attempt, delay_ms, 'worker_lost', wakeups)
  end
end

-- How many jobs wait in a queue.
local function queue_length(queue)
  local count = 0
  for _, owner in ipairs(redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':owners', 0, -1)) do
    count = count + redis.call('ZCARD', PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner)
  end
  return count
end

-- Whether a worker, as it last told of itself, has claimed anything that has not ended.
local function has_running_jobs(worker)
  return redis.call('EXISTS', PREFIX .. 'worker:' .. worker.id .. ':jobs') == 1
end

-- What the process of this name last told of itself, or nil.
local function worker_of(name)
  local newest = nil
  for _, text in ipairs(redis.call('HVALS', PREFIX .. 'workers')) do
    local worker = cjson.decode(text)
    if worker.name == name and (not newest or worker.seen_at > newest.seen_at) then newest = worker end
  end
  return newest
end

-- Wish a model for a seat, and tell its worker if one lives.
local function set_desired_model(name, seat, model, by, worker)
  seat.desired_model, seat.requested_by, seat.requested_at = model, by, now
  redis.call('HSET', PREFIX .. 'assignments', name, cjson.encode(seat))
  if worker then redis.call('PUBLISH', PREFIX .. 'worker:' .. worker.id, cjson.encode({ desired_model = model })) end
end
