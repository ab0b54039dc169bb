-- seal_batch: close a batch to further jobs.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id
-- Keys: the record and events; jobs:due
-- Returns OK.
-- Promise: a batch whose jobs have all ended ends with this. Sealing twice does no harm.

local batch = fields(id, 'status', 'sealed')
if batch.status == 'in_progress' and batch.sealed ~= '1' then seal(id) end
return redis.status_reply('OK')
