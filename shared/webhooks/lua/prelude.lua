-- What the moves of a delivery share. It is put before each of the other files when they are loaded.
--
-- Keys, all with the prefix "eh:"; the records are made by the moves of jobs (notify in shared/jobs/lua/prelude.lua):
--   delivery:<id>              hash    the record; fields are listed in shared/webhooks/deliveries.py
--   delivery:<id>:job          hash    the job as it was when there was something to tell
--   deliveries:due             zset    deliveries that wait for a time or are being tried -> that time, or the end of the lease
--   deliveries:ready:<authority>   zset    deliveries to a authority (host:port) whose time has come -> since when
--   deliveries:busy:<authority>    set     deliveries to a authority that are being tried
--   deliveries:mute:<authority>    string  the latest try there got no answer
--   deliveries:authorities          zset    authorities that may be called now -> since when their oldest delivery is ready
--   delivery_claim:<token>     string  "<delivery> <try>" claimed with this token
--   webhook:<id>               hash    an endpoint; fields are listed in shared/webhooks/endpoints.py
--   counts                     hash    how many deliveries were made and how they ended, among counts of jobs
-- Channel: deliveries (something may be claimed).
-- ARGV[1] is the time in Unix milliseconds, or '' for Redis' own clock; tests pass it in.

local PREFIX = 'eh:'
local AT_ONCE = 4
local MUTE_SECONDS = 3600
local MOST_LOST = 3
local LEAST_KEPT_MS = 4 * 24 * 3600 * 1000

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local now = clock()

local function digits(number) return string.format('%.0f', number) end

local function key_of(id) return PREFIX .. 'delivery:' .. id end

local function get(id, ...) return redis.call('HMGET', key_of(id), ...) end

-- A record that is still to be delivered outlives its schedule; one that has ended is kept as long as its job is.
local function keep(id)
  local delivery = get(id, 'status', 'next_at', 'retention_ms')
  local milliseconds = tonumber(delivery[3])
  if delivery[1] == 'pending' then
    milliseconds = math.max(milliseconds, LEAST_KEPT_MS) + math.max(0, tonumber(delivery[2]) - now)
  end
  redis.call('PEXPIRE', key_of(id), digits(milliseconds))
  redis.call('PEXPIRE', key_of(id) .. ':job', digits(milliseconds))
end

-- Enter a authority where claim looks for one, or take it out: at most AT_ONCE tries at a time, one while it gives no answer, so
-- that a dead receiver holds up its own deliveries alone.
local function judge(authority)
  local most = AT_ONCE
  if redis.call('EXISTS', PREFIX .. 'deliveries:mute:' .. authority) == 1 then most = 1 end
  local oldest = redis.call('ZRANGE', PREFIX .. 'deliveries:ready:' .. authority, 0, 0, 'WITHSCORES')[2]
  if oldest and redis.call('SCARD', PREFIX .. 'deliveries:busy:' .. authority) < most then
    redis.call('ZADD', PREFIX .. 'deliveries:authorities', oldest, authority)
    return true
  end
  redis.call('ZREM', PREFIX .. 'deliveries:authorities', authority)
  return false
end

-- Close the try that runs.
local function close_try(id, authority, changes)
  local number = redis.call('HGET', key_of(id), 'attempt')
  local try = cjson.decode(redis.call('HGET', key_of(id), 'attempt:' .. number))
  try.ended_at = now
  for name, value in pairs(changes) do try[name] = value end
  redis.call('HSET', key_of(id), 'attempt:' .. number, cjson.encode(try), 'claimed', '')
  redis.call('SREM', PREFIX .. 'deliveries:busy:' .. authority, id)
  redis.call('ZREM', PREFIX .. 'deliveries:due', id)
end

-- The one way into a final status.
local function finish(id, status, reason)
  redis.call('HSET', key_of(id), 'status', status, 'reason', reason, 'ended_at', digits(now), 'next_at', '')
  redis.call('HINCRBY', PREFIX .. 'counts', 'deliveries ' .. status, 1)
  keep(id)
end
