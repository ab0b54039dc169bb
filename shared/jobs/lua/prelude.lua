-- What every move shares. It is put before each of the other files when they are loaded (Redis' Lua has no require).
--
-- Keys, all with the prefix "eh:" (one Redis, no Cluster: a move may touch a queue and a job together):
--   job:<id>                 hash    the record; fields are listed in shared/jobs/job.py
--   job:<id>:events          stream  what clients may see; entry ids are <sequence>-0
--   job:<id>:successors      set     jobs that wait for this one to end
--   jobs:due                 zset    every job that has not ended -> time (ms) at which someone must look at it
--   jobs:dead                zset    jobs that lost too many attempts -> time of their end
--   owners                   set     every owner that has ever had a job
--   owner:<owner>:jobs       zset    ids of this owner's jobs, score 0, so that they sort by id
--   queues                   set     every queue that has ever had a job
--   queue:<q>:owners         zset    owners with a job in this queue -> service received (tokens / weight)
--   queue:<q>:jobs:<owner>   zset    jobs -> priority, then time of submission
--   queue:<q>:service        hash    owner -> service received, also of owners with nothing queued now
--   workers                  hash    worker -> what it last told of itself (enroll)
--   models                   hash    every model that a worker has ever offered -> when it first was
--   claim:<token>            string  "<job id> <attempt>" claimed with this token
--   worker:<w>:jobs          set     jobs that this worker has claimed
--   document:<id>            hash    a document; its status follows its job into failure
--   session:<id>             hash    a chat session; session:<id>:messages is the list of its messages
-- Channels: ended (the id of each job that ends), worker:<w> (a job that this worker is to stop).
-- ARGV[1] is the time in Unix milliseconds, or '' for Redis' own clock; tests pass it in.

local PREFIX = 'eh:'
local FINAL = { completed = true, failed = true, cancelled = true, expired = true }
local SERVICE_MEMORY_SECONDS = 3600

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

local function emit(id, kind, attempt, data)
  local key = job_key(id)
  local sequence = redis.call('HINCRBY', key, 'seq', 1)
  local limit = redis.call('HGET', key, 'event_limit') or '10000'
  redis.call('XADD', key .. ':events', 'MAXLEN', '~', limit, sequence .. '-0',
    'type', kind, 'attempt', attempt, 'at', digits(now), 'data', data)
end

local function charge(queue, owner, tokens)
  local service = PREFIX .. 'queue:' .. queue .. ':service'
  local total = redis.call('HINCRBYFLOAT', service, owner, tokens)
  redis.call('EXPIRE', service, SERVICE_MEMORY_SECONDS)
  -- XX: an owner with nothing queued must not enter the set that claim chooses from.
  redis.call('ZADD', PREFIX .. 'queue:' .. queue .. ':owners', 'XX', total, owner)
end

-- By when a queued job must be looked at: it must have started, or must have ended.
local function deadline(id)
  local job = get(id, 'expires_at', 'timeout_at')
  return math.min(tonumber(job[1]), tonumber(job[2] or 'inf'))
end

-- Put a queued job where claim finds it. A newcomer starts at the least service among those waiting, so that neither
-- a long absence nor a first visit buys the whole queue.
local function enqueue(id)
  local job = get(id, 'queue', 'owner', 'priority', 'created_at')
  local queue, owner = job[1], job[2]
  local owners = PREFIX .. 'queue:' .. queue .. ':owners'
  if not redis.call('ZSCORE', owners, owner) then
    local service = PREFIX .. 'queue:' .. queue .. ':service'
    local own = tonumber(redis.call('HGET', service, owner) or 0)
    local least = redis.call('ZRANGE', owners, 0, 0, 'WITHSCORES')[2]
    if least and tonumber(least) > own then
      own = tonumber(least)
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

-- Take a job away from the worker that holds it.
local function leave_worker(id, worker)
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

-- The one way into a final status. `rung` collects the queues in which a job has become claimable.
local function finish(id, status, attempt, fields, data, rung)
  local key = job_key(id)
  local job = get(id, 'queue', 'owner', 'status', 'retention_ms', 'waiting', 'after', 'document')
  if job[3] == 'queued' then dequeue(id, job[1], job[2]) end
  redis.call('HSET', key, 'status', status, 'ended_at', digits(now), 'waiting', '', 'phase', status,
    'phase_at', digits(now), unpack(fields))
  if job[7] and job[7] ~= '' then fail_document(job[7], id, status) end
  redis.call('ZREM', PREFIX .. 'jobs:due', id)
  data.status = status
  emit(id, 'ended', attempt, cjson.encode(data))
  redis.call('PUBLISH', PREFIX .. 'ended', id)
  redis.call('PEXPIRE', key, job[4])
  redis.call('PEXPIRE', key .. ':events', job[4])
  -- A job that ends while it still waits for another hands its own successors on, or they would overtake that other.
  local heir = nil
  if job[5] == 'after' and not FINAL[redis.call('HGET', job_key(job[6]), 'status') or 'completed'] then heir = job[6] end
  for _, successor in ipairs(redis.call('SMEMBERS', key .. ':successors')) do
    if redis.call('HGET', job_key(successor), 'status') == 'queued' then
      if heir then
        redis.call('SADD', job_key(heir) .. ':successors', successor)
        redis.call('HSET', job_key(successor), 'after', heir)
      else
        rung[#rung + 1] = enqueue(successor)
      end
    end
  end
  redis.call('DEL', key .. ':successors')
end

-- A job in progress goes back to be claimed again.
local function requeue(id, attempt, delay_ms, why, rung)
  redis.call('HSET', job_key(id), 'status', 'queued', 'worker', '', 'phase', 'queued', 'phase_at', digits(now))
  emit(id, 'requeued', attempt, cjson.encode({ why = why, delay_ms = delay_ms }))
  if delay_ms > 0 then
    postpone(id, now + delay_ms)
  else
    rung[#rung + 1] = enqueue(id)
  end
end

local function fail_fields(code, message)
  return { 'error', cjson.encode({ code = code, message = message, param = cjson.null, type = 'job_error' }) }
end

local function time_out(id, attempt, rung)
  local message = 'the job did not end within its timeout'
  finish(id, 'failed', attempt, fail_fields('timeout', message), { code = 'timeout' }, rung)
end

-- The attempt of a job is lost: its worker has died or fallen silent.
local function lose(id, rung)
  local job = get(id, 'attempt', 'worker', 'lost', 'max_attempts', 'cancel_requested_at')
  local attempt, worker = job[1], job[2]
  local lost = tonumber(job[3]) + 1
  close_attempt(id, attempt, 'lost')
  leave_worker(id, worker)
  redis.call('HSET', job_key(id), 'lost', lost)
  emit(id, 'attempt_lost', attempt, cjson.encode({ attempt = tonumber(attempt), worker = worker }))
  if job[5] and job[5] ~= '' then
    finish(id, 'cancelled', attempt, {}, {}, rung)
  elseif lost >= tonumber(job[4]) then
    local message = 'every worker that ran this job died (' .. lost .. ' attempts, the last on ' .. worker ..
      '); look at the logs of that worker, then replay the job'
    redis.call('ZADD', PREFIX .. 'jobs:dead', now, id)
    finish(id, 'failed', attempt, fail_fields('worker_lost', message), { code = 'worker_lost' }, rung)
  else
    -- The first loss is most often the worker's fault, so it costs no time; a job that kills its workers slows down.
    local delay_ms = 0
    if lost > 1 then delay_ms = math.min(1000 * 2 ^ (lost - 1), 60000) end
    requeue(id, attempt, delay_ms, 'worker_lost', rung)
  end
end
