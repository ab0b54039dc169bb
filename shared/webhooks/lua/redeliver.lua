-- redeliver: try a delivery again, from the start of its schedule, whatever became of it.
-- ARGV: now, id, owner
-- Keys: the record; deliveries:due and those of its authority; webhook:<id>, whose address may have changed
-- Returns 'ok' | 'trying' (that is being done at this moment) | 'missing' | 'disabled' | 'deleted' (its webhook is).
-- Promise: it keeps its id, so that a receiver knows it again, and its earlier tries.

local id = ARGV[2]
local delivery = get(id, 'owner', 'claimed', 'authority', 'endpoint', 'status')
if delivery[1] ~= ARGV[3] then return 'missing' end
if delivery[2] == '1' then return 'trying' end
if delivery[4] ~= '' then
  local endpoint = redis.call('HMGET', PREFIX .. 'webhook:' .. delivery[4], 'url', 'authority', 'disabled')
  if not endpoint[1] then return 'deleted' end
  if endpoint[3] ~= '' then return 'disabled' end
  redis.call('HSET', key_of(id), 'url', endpoint[1], 'authority', endpoint[2])
end
redis.call('ZREM', PREFIX .. 'deliveries:ready:' .. delivery[3], id)
judge(delivery[3])
if redis.call('HGET', key_of(id), 'status') ~= 'pending' then redis.call('HINCRBY', PREFIX .. 'counts', 'deliveries made', 1) end
redis.call('HSET', key_of(id), 'status', 'pending', 'reason', '', 'ended_at', '', 'failures', 0, 'lost', 0, 'next_at', digits(now))
redis.call('ZADD', PREFIX .. 'deliveries:due', digits(now), id)
keep(id)
redis.call('PUBLISH', PREFIX .. 'deliveries', '1')
return 'ok'
