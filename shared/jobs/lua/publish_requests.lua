-- publish_requests: note the output files of a request batch that has ended without publishing them.
-- Uses: job, request_batch
-- Flags: allow-oom
-- Arguments: id, changes{}
--   changes are fields of the state.
-- Keys: job:<id> and its requests
-- Returns 'ok', or 'lost' when the batch has not ended, or is gone.
-- Promise: a batch that may still be continued is not changed. Sent twice, it writes the same fields again.

local status = fields(id, 'status').status
if not status or not FINAL[status] or redis.call('EXISTS', requests_key(id)) == 0 then return 'lost' end
set_fields(requests_key(id), changes)
return 'ok'
