-- claim_delivery: give the next delivery that is due to a worker, under a lease.
-- Uses: delivery_queue
-- Flags: allow-oom
-- Arguments: worker, token, lease_ms:number
-- Keys: the record; deliveries:due, deliveries:authorities and those of its authority; delivery_claim:<token>; webhook:<id>;
--   reaping:resumed
-- Returns the record as a flat list, or an empty list.
-- Promise: a delivery is attempted by one worker at a time. After an outage of Redis, workers get time to record their attempts. One
-- whose lease has lapsed is attempted again, as a lost attempt says nothing about the receiver. Authorities take turns by the age of their oldest delivery, and none has more attempts at once than
-- its limit. The same token returns the same delivery.

local due = PREFIX .. 'deliveries:due'

local claimed = redis.call('GET', PREFIX .. 'delivery_claim:' .. token)
if claimed then
  local id, number = string.match(claimed, '(%S+) (%d+)')
  local delivery = delivery_fields(id, 'attempt', 'claimed')
  if delivery.attempt == number and delivery.claimed == '1' then return redis.call('HGETALL', delivery_key(id)) end
  return {}
end

local function make_ready(id, authority)
  redis.call('ZADD', ready_key(authority), timestamp, id)
  update_authority(authority)
end

local function mark_attempt_lost(id, delivery)
  local lost = tonumber(delivery.lost) + 1
  close_delivery_attempt(id, delivery.authority, { outcome = 'lost' })
  redis.call('HSET', delivery_key(id), 'lost', lost)
  if lost > MAX_LOST then
    finish_delivery(id, 'failed', 'Every worker that attempted it died (' .. lost .. ' attempts). Read the logs of the io workers, then redeliver it.')
    update_authority(delivery.authority)
  else
    make_ready(id, delivery.authority)
  end
end

local function start_attempt(id, delivery, authority)
  local number = tonumber(delivery.attempt) + 1
  redis.call('HSET', delivery_key(id), 'attempt', number, 'claimed', '1', 'next_at', timestamp,
    'attempt:' .. number, cjson.encode({ number = number, worker = worker, started_at = now }))
  redis.call('ZADD', due, digits(now + lease_ms), id)
  redis.call('SADD', busy_key(authority), id)
  local remembered_ms = digits(math.max(60000, 2 * lease_ms))
  redis.call('SET', PREFIX .. 'delivery_claim:' .. token, id .. ' ' .. number, 'PX', remembered_ms)
  renew_delivery(id)
  update_authority(authority)
  return redis.call('HGETALL', delivery_key(id))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', timestamp, 'LIMIT', 0, 100)) do
  local delivery = delivery_fields(id, 'status', 'claimed', 'authority', 'lost')
  redis.call('ZREM', due, id)
  if delivery.claimed == '1' and redis.call('EXISTS', PREFIX .. 'reaping:resumed') == 1 then
    redis.call('ZADD', due, digits(now + 1000), id)
  elseif delivery.claimed == '1' then
    mark_attempt_lost(id, delivery)
  elseif delivery.status == 'pending' then
    make_ready(id, delivery.authority)
  end
end

while true do
  local authority = lowest(PREFIX .. 'deliveries:authorities')
  if not authority then return {} end
  local id = lowest(ready_key(authority))
  local delivery = id and delivery_fields(id, 'status', 'endpoint', 'attempt')
  local disabled = delivery and is_set(delivery.endpoint) and
    redis.call('HGET', PREFIX .. 'webhook:' .. delivery.endpoint, 'disabled')
  if id then redis.call('ZREM', ready_key(authority), id) end
  if not delivery or delivery.status ~= 'pending' then
    update_authority(authority)
  elseif delivery.endpoint ~= '' and disabled ~= '' then
    finish_delivery(id, 'failed', disabled and 'Its webhook is disabled.' or 'Its webhook was deleted.')
    update_authority(authority)
  else
    return start_attempt(id, delivery, authority)
  end
end
