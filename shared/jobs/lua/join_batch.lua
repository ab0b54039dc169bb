-- join_batch: announce jobs that will be added to an open batch.
-- Uses: batch, idempotency
-- Arguments: id, owner, idempotency, fingerprint
--   idempotency is the Idempotency-Key of the request, or empty.
-- Keys: the record; jobs:due; idempotency:<owner>:<key>
-- Returns {'joined' | 'conflict' | 'sealed' | 'missing', the job of the conflicting request | the batch's status | ''}.
-- Promise: it restarts the time after which maintenance seals the batch. A batch that is sealed, cancelled or has ended does
-- not change. The same key joins any number of times, with the same fingerprint only.

local batch = fields(id, 'kind', 'owner', 'status', 'sealed')
if batch.kind ~= 'batch' or batch.owner ~= owner then return { 'missing', '' } end
if FINAL[batch.status] or batch.sealed == '1' then return { 'sealed', batch.status } end
local outcome, earlier = find_earlier('', owner, idempotency, fingerprint)
if outcome == 'conflict' then return { outcome, earlier } end
keep_open(id)
if not outcome then remember_request(id, owner, idempotency, fingerprint) end
return { 'joined', '' }
