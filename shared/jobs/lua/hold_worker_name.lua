-- hold_worker_name: reserve a worker's name for one process, or renew the reservation.
-- Uses: core
-- Flags: allow-oom
-- Arguments: name, process, replaces, ttl_ms:number
--   replaces is a process that is known to have ended, or empty.
-- Keys: worker:<name>:process
-- Returns '' when the process holds the name, else the process that does.
-- Promise: a name has one holder at a time. Without renewals it is free again after ttl_ms.

local key = PREFIX .. 'worker:' .. name .. ':process'
local holder = redis.call('GET', key)
if holder and holder ~= process and holder ~= replaces then return holder end
redis.call('SET', key, process, 'PX', ttl_ms)
return ''
