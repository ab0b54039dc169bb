-- list_queues: read every queue with the owners who wait in it, for administrators.
-- Uses: queue
-- Flags: allow-oom
-- Arguments: owner_limit:number
--   owner_limit is how many owners of a queue are returned, those with the least service first.
-- Keys: queues with their owners and jobs; paused
-- Returns a JSON list of objects with queue, waiting, oldest_ms (nil if none waits), paused_at (nil if it is not) and owners: a list of
-- objects with owner, waiting, end_users (how many of them wait), oldest_ms and service.
-- Promise: it changes nothing. Its cost grows with queues and owners, not with jobs.

local found = {}
local queues = redis.call('SMEMBERS', PREFIX .. 'queues')
table.sort(queues)
for _, queue in ipairs(queues) do
  local owners, oldest = {}, nil
  local waiting = redis.call('ZRANGE', queue_key(queue, 'owners'), 0, -1, 'WITHSCORES')
  for i = 1, #waiting, 2 do
    local since = oldest_of(queue, waiting[i])
    oldest = math.min(oldest or since, since)
    if #owners < owner_limit then
      owners[#owners + 1] = {
        owner = waiting[i],
        waiting = redis.call('ZCARD', owner_jobs_key(queue, waiting[i])),
        end_users = waiting_users(queue, waiting[i]),
        oldest_ms = now - since,
        service = tonumber(waiting[i + 1]),
      }
    end
  end
  local paused_at = redis.call('HGET', PREFIX .. 'paused', 'queue:' .. queue)
  found[#found + 1] = {
    queue = queue,
    waiting = queue_length(queue),
    oldest_ms = oldest and now - oldest,
    paused_at = paused_at and tonumber(paused_at) or nil,
    owners = owners,
  }
end
return cjson.encode(found)
