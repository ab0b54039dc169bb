-- redeliver: restart the schedule of a delivery, whatever its status.
-- Uses: delivery_queue
-- Arguments: id, owner
-- Keys: the record; deliveries:due, deliveries:pending and those of its authority; webhook:<id>, whose address may have changed
-- Returns 'ok' | 'in_progress' (an attempt runs now) | 'missing' | 'disabled' | 'deleted' (its webhook is).
-- Promise: it keeps its id, so that a receiver recognises it, and its earlier attempts.

local delivery = delivery_fields(id, 'owner', 'claimed', 'authority', 'endpoint', 'status')
if delivery.owner ~= owner then return 'missing' end
if delivery.claimed == '1' then return 'in_progress' end
if delivery.endpoint ~= '' then
  local endpoint = hash_fields(PREFIX .. 'webhook:' .. delivery.endpoint, 'url', 'authority', 'disabled')
  if not endpoint.url then return 'deleted' end
  if endpoint.disabled ~= '' then return 'disabled' end
  redis.call('HSET', delivery_key(id), 'url', endpoint.url, 'authority', endpoint.authority)
end
redis.call('ZREM', ready_key(delivery.authority), id)
update_authority(delivery.authority)
if delivery.status ~= 'pending' then count('deliveries made') end
redis.call('HSET', delivery_key(id), 'status', 'pending', 'reason', '', 'ended_at', '', 'failures', 0, 'lost', 0,
  'next_at', timestamp)
redis.call('ZADD', PREFIX .. 'deliveries:due', timestamp, id)
redis.call('ZADD', PREFIX .. 'deliveries:pending', timestamp, id)
renew_delivery(id)
redis.call('PUBLISH', PREFIX .. 'deliveries', '1')
return 'ok'
