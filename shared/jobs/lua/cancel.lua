-- cancel: a client no longer wants a job.
-- ARGV: now, id, owner
-- Keys: the record and events; the queue; channel worker:<worker>
-- Returns {'cancelled' (it was queued) | 'requested' (it runs; its worker is told) | 'ended' | 'missing', its status,
-- queues to ring}.
-- Promise: a queued job never runs afterwards; a job that has ended is left as it is.

local id = ARGV[2]
local key, rung = job_key(id), {}
local job = get(id, 'status', 'owner', 'attempt', 'worker', 'cancel_requested_at')
if not job[1] or job[2] ~= ARGV[3] then return { 'missing', '', rung } end
if FINAL[job[1]] then return { 'ended', job[1], rung } end
if not job[5] then redis.call('HSET', key, 'cancel_requested_at', digits(now)) end
if job[1] == 'queued' then
  finish(id, 'cancelled', job[3], {}, {}, rung)
  return { 'cancelled', 'cancelled', rung }
end
-- The renewal tells the worker too, some seconds later; this message makes it stop at once.
redis.call('PUBLISH', PREFIX .. 'worker:' .. job[4], cjson.encode({ cancel = id, attempt = tonumber(job[3]) }))
return { 'requested', job[1], rung }
