-- claim: give the next job of a queue to a worker, under a lease.
-- ARGV: now, queue, worker, token, lease_ms
-- Keys: the queue; the record and events of the job; worker:<worker>:jobs; claim:<token>
-- Returns {the record as a flat list or an empty list, queues to wake}.
-- Promise: the owner with the least service comes first, then that owner's most urgent and oldest job. A job is given to
-- one worker at a time. The same token sent twice gets the same job while that attempt is still its own; jobs whose time
-- to start has passed are ended `expired` on the way.

local queue, worker, token, lease_ms = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local token_key = PREFIX .. 'claim:' .. token
local wakeups = {}

local seen = redis.call('GET', token_key)
if seen then
  local id, attempt = string.match(seen, '(%S+) (%d+)')
  local job = get(id, 'attempt', 'status')
  if job[1] == attempt and job[2] == 'in_progress' then return { redis.call('HGETALL', job_key(id)), wakeups } end
  return { {}, wakeups }
end

-- How fast the queue moves, as far as it has work: the time between two claims counts when jobs waited in between.
local function measure(name)
  local stem = PREFIX .. 'queue:' .. name
  local last = redis.call('GET', stem .. ':claimed_at')
  if last then
    redis.call('LPUSH', stem .. ':gaps', now - tonumber(last))
    redis.call('LTRIM', stem .. ':gaps', 0, 99)
    redis.call('EXPIRE', stem .. ':gaps', 3600)
  end
  if redis.call('EXISTS', stem .. ':owners') == 1 then
    redis.call('SET', stem .. ':claimed_at', digits(now), 'EX', 600)
  else
    redis.call('DEL', stem .. ':claimed_at')
  end
end

local owners = PREFIX .. 'queue:' .. queue .. ':owners'
while true do
  local first = redis.call('ZRANGE', owners, 0, 0, 'WITHSCORES')
  local owner, level = first[1], first[2]
  if not owner then return { {}, wakeups } end
  local id = redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner, 0, 0)[1]
  if id then dequeue(id, queue, owner) else redis.call('ZREM', owners, owner) end
  local job = id and get(id, 'expires_at', 'attempt', 'cost', 'shown', 'started_at', 'timeout_at')
  if not job or not job[1] then
    -- A record that is gone (deleted by hand, say) must not stop the queue.
  elseif tonumber(job[1]) <= now and not job[5] then
    finish(id, 'expired', job[2], {}, {}, wakeups)
  elseif job[6] and tonumber(job[6]) <= now then
    time_out(id, job[2], wakeups)
  else
    local key, attempt = job_key(id), tonumber(job[2]) + 1
    redis.call('HSET', key, 'status', 'in_progress', 'attempt', attempt, 'worker', worker, 'waiting', '',
      'phase', 'started', 'phase_at', digits(now), 'heartbeat_at', digits(now), 'written', 0,
      'attempt:' .. attempt, cjson.encode({ number = attempt, worker = worker, queue = queue, started_at = now }))
    if not job[5] then redis.call('HSET', key, 'started_at', digits(now)) end
    redis.call('ZADD', PREFIX .. 'jobs:due', now + lease_ms, id)
    redis.call('SADD', PREFIX .. 'worker:' .. worker .. ':jobs', id)
    redis.call('SET', token_key, id .. ' ' .. attempt, 'PX', math.max(60000, 2 * lease_ms))
    redis.call('SET', PREFIX .. 'queue:' .. queue .. ':level', level, 'EX', SERVICE_MEMORY_SECONDS)
    add_service(queue, owner, job[3])
    tally('claimed', queue)
    measure(queue)
    if not job[5] then notify(id, 'job.started') end
    emit(id, 'started', attempt, cjson.encode({ attempt = attempt, worker = worker }))
    -- What an earlier attempt has shown is void; a client that joined the pieces must drop them.
    if job[4] == '1' then
      emit(id, 'restart', attempt, cjson.encode({ attempt = attempt }))
      redis.call('HSET', key, 'shown', '')
    end
    return { redis.call('HGETALL', key), wakeups }
  end
end
