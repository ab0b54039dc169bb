-- seal: no further job will join a batch.
-- ARGV: now, id
-- Keys: the record and events; jobs:due
-- Returns nothing.
-- Promise: a batch whose jobs have all ended ends with this; sealing twice does no harm.

local id = ARGV[2]
local batch = get(id, 'status', 'sealed')
if batch[1] == 'in_progress' and batch[2] ~= '1' then
  redis.call('HSET', job_key(id), 'sealed', '1')
  redis.call('ZADD', PREFIX .. 'jobs:due', 'inf', id)
  finish_batch_if_done(id, {})
end
return redis.status_reply('OK')
