-- claim: give the next delivery that is to be tried to a worker, under a lease.
-- ARGV: now, worker, token, lease_ms
-- Keys: the record; deliveries:due, deliveries:authorities and those of its authority; delivery_claim:<token>; webhook:<id>
-- Returns the record as a flat list, or an empty list.
-- Promise: a delivery is tried by one worker at a time; one whose lease has lapsed is tried again, as a lost try says nothing
-- about the receiver. Authorities take turns by the age of their oldest delivery, and none has more tries at once than its limit.
-- The same token sent twice gets the same delivery.

local worker, token, lease_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])
local due = PREFIX .. 'deliveries:due'

local seen = redis.call('GET', PREFIX .. 'delivery_claim:' .. token)
if seen then
  local id, number = string.match(seen, '(%S+) (%d+)')
  local delivery = get(id, 'attempt', 'claimed')
  if delivery[1] == number and delivery[2] == '1' then return redis.call('HGETALL', key_of(id)) end
  return {}
end

local function offer(id, authority)
  redis.call('ZADD', PREFIX .. 'deliveries:ready:' .. authority, digits(now), id)
  judge(authority)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', digits(now), 'LIMIT', 0, 100)) do
  local delivery = get(id, 'status', 'claimed', 'authority', 'lost')
  redis.call('ZREM', due, id)
  if delivery[2] == '1' then
    local lost = tonumber(delivery[4]) + 1
    close_try(id, delivery[3], { outcome = 'lost' })
    redis.call('HSET', key_of(id), 'lost', lost)
    if lost > MOST_LOST then
      finish(id, 'failed', 'the workers that tried it died, ' .. lost .. ' times')
      judge(delivery[3])
    else
      offer(id, delivery[3])
    end
  elseif delivery[1] == 'pending' then
    offer(id, delivery[3])
  end
end

while true do
  local authority = redis.call('ZRANGE', PREFIX .. 'deliveries:authorities', 0, 0)[1]
  if not authority then return {} end
  local ready = PREFIX .. 'deliveries:ready:' .. authority
  local id = redis.call('ZRANGE', ready, 0, 0)[1]
  local delivery = id and get(id, 'status', 'endpoint', 'attempt')
  local disabled = delivery and delivery[2] and delivery[2] ~= '' and
    redis.call('HGET', PREFIX .. 'webhook:' .. delivery[2], 'disabled')
  if id then redis.call('ZREM', ready, id) end
  if not delivery or delivery[1] ~= 'pending' then
    judge(authority)
  elseif delivery[2] ~= '' and disabled ~= '' then
    finish(id, 'failed', disabled and 'its webhook is disabled' or 'its webhook was deleted')
    judge(authority)
  else
    local number = tonumber(delivery[3]) + 1
    redis.call('HSET', key_of(id), 'attempt', number, 'claimed', '1', 'next_at', digits(now),
      'attempt:' .. number, cjson.encode({ number = number, worker = worker, started_at = now }))
    redis.call('ZADD', due, digits(now + lease_ms), id)
    redis.call('SADD', PREFIX .. 'deliveries:busy:' .. authority, id)
    redis.call('SET', PREFIX .. 'delivery_claim:' .. token, id .. ' ' .. number, 'PX', digits(math.max(60000, 2 * lease_ms)))
    keep(id)
    judge(authority)
    return redis.call('HGETALL', key_of(id))
  end
end
