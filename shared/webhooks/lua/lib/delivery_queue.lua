-- Queues of deliveries: one for each authority (host:port), with a limit of concurrent attempts.
-- Uses: delivery
--
-- Keys:
--   deliveries:mute:<authority>    string  present when the latest attempt got no response
--   deliveries:authorities         zset    authorities that may be called now -> since when their oldest delivery is ready
--   delivery_claim:<token>         string  "<delivery> <attempt>" that was claimed with this token

local MAX_CONCURRENT = 4
local MUTE_SECONDS = 3600
local MAX_LOST = 3

local function delivery_fields(id, ...) return hash_fields(delivery_key(id), ...) end

local function mute_key(authority) return PREFIX .. 'deliveries:mute:' .. authority end

-- Renew the time to live: a pending delivery outlives its schedule, one that has ended is kept as long as its job.
local function renew_delivery(id)
  local delivery = delivery_fields(id, 'status', 'next_at', 'retention_ms', 'job')
  local milliseconds = tonumber(delivery.retention_ms)
  if delivery.status == 'pending' then
    milliseconds = math.max(milliseconds, MIN_RETENTION_MS) + math.max(0, tonumber(delivery.next_at) - now)
  end
  redis.call('PEXPIRE', delivery_key(id), digits(milliseconds))
  redis.call('PEXPIRE', delivery_key(id) .. ':job', digits(milliseconds))
  -- The result is read from the job.
  redis.call('ZADD', PREFIX .. 'jobs:ended', 'XX', 'GT', digits(now + milliseconds), delivery.job)
end

-- Add an authority to those that may be called, or remove it. While it does not respond it gets one attempt at a time, so that
-- a dead receiver delays only its own deliveries. Returns whether it may be called.
local function update_authority(authority)
  local limit = redis.call('EXISTS', mute_key(authority)) == 1 and 1 or MAX_CONCURRENT
  local _, oldest = lowest(ready_key(authority))
  if oldest and redis.call('SCARD', busy_key(authority)) < limit then
    redis.call('ZADD', PREFIX .. 'deliveries:authorities', oldest, authority)
    return true
  end
  redis.call('ZREM', PREFIX .. 'deliveries:authorities', authority)
  return false
end

-- Close the running attempt.
local function close_delivery_attempt(id, authority, changes)
  local field = 'attempt:' .. delivery_fields(id, 'attempt').attempt
  local attempt = cjson.decode(redis.call('HGET', delivery_key(id), field))
  attempt.ended_at = now
  for name, value in pairs(changes) do attempt[name] = value end
  redis.call('HSET', delivery_key(id), field, cjson.encode(attempt), 'claimed', '')
  redis.call('SREM', busy_key(authority), id)
  redis.call('ZREM', PREFIX .. 'deliveries:due', id)
end

-- The only way into a final status.
local function finish_delivery(id, status, reason)
  redis.call('HSET', delivery_key(id), 'status', status, 'reason', reason, 'ended_at', timestamp, 'next_at', '')
  note(counted('deliveries ' .. status), observed('delivery', status, (now - tonumber(delivery_fields(id, 'created_at').created_at)) / 1000))
  redis.call('ZREM', PREFIX .. 'deliveries:pending', id)
  renew_delivery(id)
end
