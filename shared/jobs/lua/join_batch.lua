-- join: jobs are about to be added to an open batch.
-- ARGV: now, id, owner, idempotency key or '', fingerprint
-- Keys: the record; jobs:due; idempotency:<owner>:<key>
-- Returns {'joined' | 'conflict' | 'sealed' | 'missing', what the key was used for, or the batch's status, or ''}.
-- Promise: the time after which the janitor seals the batch begins anew; a batch that is sealed, to be cancelled or has ended is
-- left as it is. Until then the same key joins with the same fingerprint alone, as often as it is sent.

local id, owner = ARGV[2], ARGV[3]
local batch = get(id, 'kind', 'owner', 'status', 'sealed')
if batch[1] ~= 'batch' or batch[2] ~= owner then return { 'missing', '' } end
if FINAL[batch[3]] or batch[4] == '1' then return { 'sealed', batch[3] } end
local answer, earlier = seen_before('', owner, ARGV[4], ARGV[5])
if answer == 'conflict' then return { answer, earlier } end
keep_open(id)
if not answer then remember(id, owner, ARGV[4], ARGV[5]) end
return { 'joined', '' }
